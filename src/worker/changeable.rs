//! Settings that may change while a worker runs.

use std::sync::{Arc, PoisonError, RwLock};

/// A value that may be changed while others read it.
#[derive(Debug, Default)]
pub struct Changeable<T>(RwLock<Arc<T>>);

impl<T> Changeable<T> {
    /// With this value to begin with.
    pub fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// The value as it is now.
    pub fn get(&self) -> Arc<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another value from now on.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}
