//! What goes wrong with brokers, and whether it passes.

use std::fmt;
use std::sync::Arc;

use pulsar::proto::ServerError;
use tokio_rustls::rustls;

use crate::error::{Error, Kind};

/// Why something did not come about. Several channels may share one cause.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) sort: Sort,
    why: Arc<str>,
}

/// What to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// It may be over the next time.
    Passing,
    /// The credentials are missing, wrong, or lack a right.
    Denied,
    /// The two sides do not trust each other's certificates.
    Unsafe,
    /// There is no such topic.
    NoTopic,
    /// Somebody else is connected to the subscription.
    Busy,
    /// A broker has sent more than there is room for.
    TooMuch,
    /// The topic is not what Milvus writes to.
    Unfit,
    /// There is a durable subscription of that name.
    DurableExists,
}

impl Trouble {
    pub(super) fn new(sort: Sort, why: impl Into<Arc<str>>) -> Trouble {
        Trouble { sort, why: why.into() }
    }

    pub(super) fn passing(why: impl Into<Arc<str>>) -> Trouble {
        Trouble::new(Sort::Passing, why)
    }

    /// What happened to a connection.
    pub(super) fn io(error: &std::io::Error) -> Trouble {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(inner) => Trouble::new(Sort::Unsafe, format!("TLS: {inner}")),
            None => Trouble::passing(error.to_string()),
        }
    }

    /// The error that ends a channel or a command, with this message.
    pub(super) fn error(&self, message: String) -> Error {
        match self.sort {
            Sort::Denied => Error::new(Kind::Denied, message).hint(
                "check token in [source.mq]; its role needs the right to consume from the namespace (pulsar-admin \
                 namespaces grant-permission --actions consume)",
            ),
            Sort::Unsafe => Error::new(Kind::Denied, message)
                .hint("check ca, cert, key and server_name in [source.mq.tls], and the host in uri"),
            _ => Error::new(Kind::Unavailable, message).hint(
                "check uri, tenant and namespace in [source.mq], and that the addresses that brokers tell their clients \
                 can be reached",
            ),
        }
    }

    /// What a broker answers instead of doing what it was asked.
    pub(super) fn answered(code: i32, message: &str) -> Trouble {
        let code = ServerError::try_from(code).unwrap_or(ServerError::UnknownError);
        let sort = match code {
            ServerError::AuthenticationError | ServerError::AuthorizationError => Sort::Denied,
            ServerError::TopicNotFound => Sort::NoTopic,
            ServerError::ConsumerBusy => Sort::Busy,
            ServerError::NotAllowedError if message.contains("Durable subscription") => Sort::DurableExists,
            _ => Sort::Passing,
        };
        // Brokers put the classes of their exceptions in front.
        let words = message.lines().next().unwrap_or_default();
        let words = words.rsplit_once("Exception: ").map_or(words, |(_, words)| words).trim();
        let code = code.as_str_name();
        Trouble::new(sort, if words.is_empty() { code.to_owned() } else { format!("{code}: {words}") })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_and_told_without_java() {
        let trouble = Trouble::answered(3, "javax.naming.AuthenticationException: Unknown token\n\tat x");
        assert_eq!(
            (trouble.sort, trouble.to_string().as_str()),
            (Sort::Denied, "AuthenticationError: Unknown token")
        );
        assert_eq!(Trouble::answered(4, "").sort, Sort::Denied);
        assert_eq!(Trouble::answered(11, "Topic does not exist").sort, Sort::NoTopic);
        assert_eq!(Trouble::answered(6, "").to_string(), "ServiceNotReady");
        assert_eq!(Trouble::answered(99, "new").to_string(), "UnknownError: new");
    }
}
