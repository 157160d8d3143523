//! `migrans serve`: many pipelines in one process, made and watched over HTTP.
//!
//! ```text
//!  HTTP ──► api ──► manager ──► unit (a thread each) ──► dataflow::run
//!                      │          └── what it tells of itself: views, events, metrics
//!                      └── book: definitions, and what is wanted of each pipeline
//! ```

pub mod auth;
pub mod book;
pub mod definition;
pub mod manager;
pub mod problem;
pub mod unit;
pub mod view;

pub use book::StateOf;
pub use manager::{Manager, Options, Outcome};
pub use view::{State, View};

use std::sync::Arc;

use axum::Router;

use self::auth::Tokens;

/// Everything that the server answers. What is mounted here has been let in: `auth::Role` is an extension of each request.
pub fn router(manager: Manager, tokens: Arc<Tokens>) -> Router {
    let routes = Router::new().with_state(manager);
    routes.layer(axum::middleware::from_fn_with_state(tokens, auth::let_in))
}
