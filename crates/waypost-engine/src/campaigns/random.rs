//! Random bytes from the operating system.

use super::error::CampaignError;

/// Unpredictable random bytes, for secrets and salts.
pub(super) fn random<const BYTES: usize>() -> Result<[u8; BYTES], CampaignError> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random)
        .map_err(|error| CampaignError::Unavailable(format!("no random bytes from the operating system: {error}")))?;
    Ok(random)
}
