//! The first error that ends a pipeline.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;

/// Keeps the first error that anything in a pipeline reports; the rest are its echoes.
#[derive(Clone, Debug, Default)]
pub struct Failure(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    failed: bool,
    error: Option<Error>,
}

impl Failure {
    /// Reports an error.
    pub fn set(&self, error: Error) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failed {
            tracing::debug!("a further error: {}", error.report());
        } else {
            state.failed = true;
            state.error = Some(error);
        }
    }

    /// Whether there was one.
    pub fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failed
    }

    /// Takes the error out. [`Failure::is_set`] stays true.
    pub fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).error.take()
    }
}
