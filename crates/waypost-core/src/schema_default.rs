//! Defaults in JSON Schemas.

/// A schema default that marks a field as optional in requests without showing a value. Such a field is filled in by
/// our own rules, not by serde.
pub fn omitted_default() -> OmittedDefault {
    OmittedDefault
}

pub struct OmittedDefault;
