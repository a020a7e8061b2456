//! The phone number of a person whose data is to be erased.

use crate::violation::Violation;

/// A shorter number would match almost every unreadable body.
const MIN_CHARS: usize = 4;

/// A phone number that is long enough to search for. It has no `Debug`, because phone numbers are never logged.
pub struct PhoneNumber(String);

impl PhoneNumber {
    /// # Errors
    /// The violation if the number is too short.
    pub fn parse(text: String) -> Result<Self, Violation> {
        if text.chars().count() < MIN_CHARS {
            return Err(Violation::new("$.phoneNumber", format!("must have at least {MIN_CHARS} characters")));
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_are_refused() {
        for (text, is_valid) in [("", false), ("123", false), ("üüü", false), ("1234", true), ("+5511999990000", true)]
        {
            let path = PhoneNumber::parse(text.to_owned()).err().map(|violation| violation.path);
            assert_eq!(path.as_deref(), (!is_valid).then_some("$.phoneNumber"), "{text}");
        }
    }
}
