//! Who may do what: bearer tokens, each with a role.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use subtle::{Choice, ConstantTimeEq};

use super::problem::Problem;
use crate::error::{Error, Kind};

/// What the sender of a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Read,
    /// Look, and change.
    Write,
}

impl Role {
    /// Lets pass who may change things.
    ///
    /// # Errors
    /// `Denied`.
    pub fn must_write(self) -> Result<(), Problem> {
        match self {
            Role::Write => Ok(()),
            Role::Read => {
                let error = Error::new(Kind::Denied, "this token may look, but not change anything");
                Err(error.hint("use a token from write in [tokens] of the server's file").into())
            }
        }
    }
}

/// The tokens of a server.
#[derive(Default)]
pub struct Tokens {
    read: Vec<String>,
    write: Vec<String>,
}

impl Tokens {
    /// Those that may look, and those that may change things too. With none at all everybody may do everything.
    pub fn new(read: Vec<String>, write: Vec<String>) -> Tokens {
        Tokens { read, write }
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.read.is_empty() && self.write.is_empty()
    }

    /// The role of the sender of a request with these headers.
    ///
    /// # Errors
    /// `None` for a stranger.
    pub fn role(&self, headers: &HeaderMap) -> Option<Role> {
        if self.is_open() {
            return Some(Role::Write);
        }
        let shown = bearer(headers)?.as_bytes();
        // Each is compared, whatever the others come to: the time it takes says nothing of any of them but its length.
        let among = |tokens: &[String]| {
            let is_any = |any: Choice, token: &String| any | token.as_bytes().ct_eq(shown);
            bool::from(tokens.iter().fold(Choice::from(0), is_any))
        };
        let (write, read) = (among(&self.write), among(&self.read));
        if write { Some(Role::Write) } else { read.then_some(Role::Read) }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({} read, {} write)", self.read.len(), self.write.len())
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (values.next().is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

/// Lets a request in, with its sender's role, or answers 401.
pub async fn let_in(State(tokens): State<Arc<Tokens>>, mut request: Request, next: Next) -> Response {
    match tokens.role(request.headers()) {
        Some(role) => {
            request.extensions_mut().insert(role);
            next.run(request).await
        }
        None => {
            let error = Error::new(Kind::Denied, "no token, or none that is known here")
                .hint("send Authorization: Bearer TOKEN");
            let mut answer = Problem::from(error).with_status(http::StatusCode::UNAUTHORIZED).into_response();
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(tokens: &Tokens, header: &str) -> Option<Role> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, header.parse().unwrap());
        tokens.role(&headers)
    }

    #[test]
    fn a_token_has_its_role_and_nothing_else_has_one() {
        let tokens = Tokens::new(vec!["look".into()], vec!["change".into(), "also".into()]);
        assert_eq!(role(&tokens, "Bearer look"), Some(Role::Read));
        assert_eq!(role(&tokens, "bearer also"), Some(Role::Write));
        for header in
            ["look", "Basic look", "Bearer", "Bearer ", "Bearer loo", "Bearer lookk", "Bearer look look"]
        {
            assert_eq!(role(&tokens, header), None, "{header}");
        }
        assert_eq!(tokens.role(&HeaderMap::new()), None);
        let mut twice = HeaderMap::new();
        twice.append(AUTHORIZATION, "Bearer look".parse().unwrap());
        twice.append(AUTHORIZATION, "Bearer change".parse().unwrap());
        assert_eq!(tokens.role(&twice), None, "which of them is meant?");
        assert_eq!(format!("{tokens:?}"), "Tokens(1 read, 2 write)");
    }

    #[test]
    fn without_tokens_the_server_is_open() {
        assert_eq!(Tokens::default().role(&HeaderMap::new()), Some(Role::Write));
    }
}
