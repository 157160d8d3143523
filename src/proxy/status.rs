//! What an answer means for what may be done next.
//!
//! Milvus answers a refused call with gRPC's OK and a `common.Status`. Its `code` tells the sort of failure (Milvus
//! `pkg/util/merr/errors.go`; `error_code` is the code of 2.2 and before), but 2.3 gives 65535, "unexpected", to
//! many refusals that come the same every time. Those are told apart by their reason.

use std::error::Error as StdError;

use tonic::{Code, ConnectError};

use crate::error::{Error, Kind, Result};
use crate::milvus::proto::common::Status;
use crate::ownership::Closed;

/// What a call leaves behind if its answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It changes something: whether it did is in doubt.
    Rows,
    /// It only reads, or sending it again comes to the same.
    Repeatable,
}

/// The reasons that come with code 5 or 65535 (or the old code 1) but say that the call can't ever succeed. Written
/// down from answers of a 2.3.5 server, see the tests.
const REFUSALS: &[&str] = &[
    "already exist",
    "at most one distinct index is allowed",
    "can not drop default database",
    "can't find data for primary field",
    "cannot parse expression",
    "creating multiple indexes on same field",
    "default partition cannot be deleted",
    "disable create partition if partition key mode is used",
    "exceeds max length",
    "failed to create delete plan",
    "failed to create expr plan",
    "invalid index type",
    "is loaded, please release it first",
    "is not a number or infinity",
    "is not divisible by dim",
    "is not supported",
    "maximum field's number",
    "maximum shards's number",
    "must drop all collections before drop database",
    "not support manually specifying the partition names",
    "should be a multiple of 8",
    "should be greater than 0",
    "should divide the dim",
    "there is no vector index on field",
    "with different parameters",
];

/// Checks the status in an answer to `what`.
///
/// # Errors
/// Of the kind that tells what to do next.
pub(crate) fn check(status: Option<&Status>, effect: Effect, what: &str) -> Result<()> {
    let Some(status) = status else { return Ok(()) };
    match kind_of(status, effect) {
        None => Ok(()),
        Some(kind) => {
            let code = if status.code == 0 { status.error_code } else { status.code };
            let reason = if status.reason.is_empty() { "no reason given" } else { &status.reason };
            Err(with_hint(Error::new(kind, format!("{what}: {reason} (Milvus code {code})"))))
        }
    }
}

/// The kind of a status, `None` for success.
fn kind_of(status: &Status, effect: Effect) -> Option<Kind> {
    let kind = match (status.code, status.error_code) {
        (0, 0) => return None,
        (5 | 65535, _) => by_reason(status, effect),
        (0, old) => match old {
            1 => by_reason(status, effect),
            4 | 15 | 25 => Kind::NotFound,
            5 | 8 | 9 | 17 => Kind::Refused,
            49 => Kind::RateLimited,
            48 | 53 | 54 => Kind::Exhausted,
            50 => Kind::Unavailable,
            _ => unknown(status, effect),
        },
        (1 | 2 | 4 | 12, _) => Kind::Unavailable,
        (8, _) => Kind::RateLimited,
        // Memory, disk, quota, a delayed time tick, and the limits on how many collections or databases there may be.
        (3 | 7 | 9 | 11 | 102 | 801, _) => Kind::Exhausted,
        (100 | 200 | 700 | 800, _) => Kind::NotFound,
        (6 | 10 | 101 | 104..=109 | 701..=799 | 802..=899 | 1100..=1199 | 1700..=1799 | 1900..=1999, _) => {
            Kind::Refused
        }
        (1400..=1499, _) => Kind::Denied,
        _ => unknown(status, effect),
    };
    Some(kind)
}

fn by_reason(status: &Status, effect: Effect) -> Kind {
    let reason = status.reason.as_str();
    if reason.starts_with("database:") && reason.ends_with("not found") {
        return Kind::NotFound;
    }
    // ReplicateMessage finds segments for its inserts before it writes anything, and finds none for rows of more than two
    // seconds ahead of the server's clock.
    if reason.starts_with("getSegmentID failed") {
        return Kind::Unavailable;
    }
    // Not enough query nodes for the replicas asked for: somebody may add some.
    if reason.contains("nodes not enough") {
        return Kind::Exhausted;
    }
    // Error 5 of 2.2's numbering is an illegal argument.
    if status.error_code == 5 || REFUSALS.iter().any(|refusal| reason.contains(refusal)) {
        return Kind::Refused;
    }
    unknown(status, effect)
}

fn unknown(status: &Status, effect: Effect) -> Kind {
    match effect {
        Effect::Repeatable if status.retriable => Kind::Unavailable,
        // Part of the shards may have been written; or it may be a refusal in words that are not known here.
        _ => Kind::InDoubt,
    }
}

/// The error of a call that failed as a call, without an answer of Milvus.
pub(crate) fn of_call(status: tonic::Status, effect: Effect, what: &str) -> Error {
    let lost = match effect {
        Effect::Rows => Kind::InDoubt,
        Effect::Repeatable => Kind::Unavailable,
    };
    let said = status.message().to_owned();
    let (kind, message) = match status.code() {
        _ if has_cause::<Closed>(&status) => (Kind::Unavailable, format!("{what}: {Closed}")),
        _ if has_cause::<ConnectError>(&status) => {
            (Kind::Unavailable, format!("{what}: the server can't be reached"))
        }
        Code::Unauthenticated | Code::PermissionDenied => (Kind::Denied, format!("{what}: {said}")),
        Code::Unimplemented => (Kind::Version, format!("{what}: the server does not know this call")),
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => {
            (Kind::Refused, format!("{what}: {said}"))
        }
        Code::ResourceExhausted if said.contains("received message larger than max") => {
            (Kind::Refused, format!("{what}: {said}"))
        }
        Code::DeadlineExceeded => (lost, format!("{what}: no answer in time")),
        code => (lost, format!("{what}: the connection failed ({code:?})")),
    };
    with_hint(Error::new(kind, message).caused_by(status))
}

/// The error of a call that was not answered within its deadline.
pub(crate) fn of_silence(effect: Effect, what: &str) -> Error {
    of_call(tonic::Status::deadline_exceeded("no answer within the deadline"), effect, what)
}

/// The status of a call that was not sent because of the fence.
pub(super) fn of_fence(closed: Closed) -> tonic::Status {
    let mut status = tonic::Status::unavailable(closed.to_string());
    status.set_source(std::sync::Arc::new(closed));
    status
}

/// Whether the call failed because of an `E`. Both that there are come before anything of the call is sent.
fn has_cause<E: StdError + 'static>(status: &tonic::Status) -> bool {
    let mut cause = StdError::source(status);
    while let Some(error) = cause {
        if error.is::<E>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn with_hint(error: Error) -> Error {
    match error.kind() {
        Kind::Denied => error.hint("check `token`, and the permissions of its user"),
        Kind::Exhausted => error.hint("make room on the target: memory, disk, nodes, or its quota settings"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(error_code: i32, code: i32, reason: &str) -> Status {
        Status { error_code, code, reason: reason.into(), ..Default::default() }
    }

    /// Answers of a Milvus 2.3.5: old code, code, reason. To record them again, send a server the calls that the
    /// reasons speak of; rate limits need `quotaAndLimits.dml.*` set low,
    /// the quota `quotaAndLimits.limitWriting.forceDeny`, replicas a single query node.
    const RECORDED: &[(Kind, i32, i32, &str)] = &[
        (Kind::NotFound, 4, 100, "collection not found[database=default][collection=zz]"),
        (
            Kind::NotFound,
            1,
            100,
            "can't find collection collection not found[database=default][collection=zz]",
        ),
        (
            Kind::NotFound,
            4,
            100,
            "Failed to get collection id: collection not found[database=default][collection=zz]",
        ),
        (Kind::NotFound, 15, 200, "partition not found[partition=zz]"),
        (Kind::NotFound, 25, 700, "index not found[collection=a]"),
        (Kind::NotFound, 1, 65535, "database:nodb not found"),
        (
            Kind::RateLimited,
            49,
            8,
            "request is rejected by grpc RateLimiter middleware, please retry later: rate limit exceeded[rate=1]",
        ),
        (
            Kind::Exhausted,
            48,
            9,
            "quota exceeded[reason=the writing has been deactivated by the administrator]",
        ),
        (Kind::Exhausted, 1, 65535, "nodes not enough"),
        (
            Kind::Refused,
            5,
            1100,
            "the num_rows (4) of field (v) is not equal to passed num_rows (2): invalid parameter[expected=2][actual=2]",
        ),
        (
            Kind::Refused,
            5,
            1100,
            "the length (100) of 0th string exceeds max length (10): invalid parameter[expected=valid length string][actual=string length exceeds max length]",
        ),
        (
            Kind::Refused,
            5,
            1100,
            "varchar field 't' is illegal, array type mismatch: invalid parameter[expected=need string array][actual=got nil]",
        ),
        (
            Kind::Refused,
            5,
            1100,
            "the number of fields is less than needed: invalid parameter[expected=3][actual=4]",
        ),
        (
            Kind::Refused,
            5,
            1100,
            "Invalid collection name: a-b. collection name can only contain numbers, letters and underscores: invalid parameter",
        ),
        (Kind::Refused, 5, 1100, "index type not match: invalid parameter[expected=Trie][actual=AUTOINDEX]"),
        (
            Kind::Refused,
            5,
            1100,
            "can't change the replica number for loaded collection: invalid parameter[expected=1][actual=2]",
        ),
        (Kind::Refused, 1, 101, "collection not loaded[collection=470651519856017903]"),
        (Kind::Refused, 1, 65535, "value 'NaN' is not a number or infinity"),
        (Kind::Refused, 1, 65535, "the length(5) of float data should divide the dim(4)"),
        (Kind::Refused, 1, 65535, "can't find data for primary field: k"),
        (Kind::Refused, 1, 65535, "failed to create expr plan, expr = k in [\"a\"]"),
        (
            Kind::Refused,
            1,
            65535,
            "not support manually specifying the partition names if partition key mode is used",
        ),
        (Kind::Refused, 1, 65535, "disable create partition if partition key mode is used"),
        (Kind::Refused, 1, 65535, "create duplicate collection with different parameters, collection: a"),
        (Kind::Refused, 1, 65535, "maximum shards's number should be limited to 16"),
        (Kind::Refused, 1, 65535, "multiple vector fields is not supported, fields name: v, w"),
        (Kind::Refused, 1, 65535, "default partition cannot be deleted"),
        (Kind::Refused, 1, 65535, "invalid index type: NOPE"),
        (Kind::Refused, 1, 65535, "CreateIndex failed: at most one distinct index is allowed per field"),
        (
            Kind::Refused,
            1,
            65535,
            "CreateIndex failed: creating multiple indexes on same field is not supported",
        ),
        (
            Kind::Refused,
            1,
            65535,
            "partition cannot be dropped, partition is loaded, please release it first",
        ),
        (Kind::Refused, 1, 65535, "index cannot be dropped, collection is loaded, please release it first"),
        (Kind::Refused, 1, 65535, "database already exist: d1"),
        (Kind::Refused, 1, 65535, "database:d1 not empty, must drop all collections before drop database"),
        (Kind::Refused, 1, 65535, "can not drop default database"),
    ];

    #[test]
    fn recorded_answers_have_their_kind_whatever_the_call() {
        for (kind, error_code, code, reason) in RECORDED {
            for effect in [Effect::Rows, Effect::Repeatable] {
                let error = check(Some(&status(*error_code, *code, reason)), effect, "insert").unwrap_err();
                assert_eq!(error.kind(), *kind, "{reason}");
                assert!(
                    error.message().starts_with("insert: ") && error.message().contains(reason),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn codes_follow_the_table() {
        for (code, kind) in [
            (1, Kind::Unavailable),
            (2, Kind::Unavailable),
            (3, Kind::Exhausted),
            (4, Kind::Unavailable),
            (7, Kind::Exhausted),
            (8, Kind::RateLimited),
            (9, Kind::Exhausted),
            (11, Kind::Exhausted),
            (12, Kind::Unavailable),
            (800, Kind::NotFound),
            (1101, Kind::Refused),
            (1102, Kind::Refused),
            (1402, Kind::Denied),
            (1900, Kind::Refused),
        ] {
            assert_eq!(kind_of(&status(0, code, "x"), Effect::Rows), Some(kind), "{code}");
        }
        for (old, kind) in
            [(48, Kind::Exhausted), (49, Kind::RateLimited), (53, Kind::Exhausted), (4, Kind::NotFound)]
        {
            assert_eq!(kind_of(&status(old, 0, "x"), Effect::Rows), Some(kind), "old {old}");
        }
        assert_eq!(kind_of(&status(0, 0, ""), Effect::Rows), None);
        assert!(check(None, Effect::Rows, "x").is_ok());
    }

    #[test]
    fn an_unknown_failure_is_in_doubt() {
        for failure in [
            status(1, 65535, "stack of an internal call"),
            status(0, 5, "?"),
            status(1, 0, "?"),
            status(0, 503, "?"),
        ] {
            assert_eq!(kind_of(&failure, Effect::Rows), Some(Kind::InDoubt));
            assert_eq!(kind_of(&failure, Effect::Repeatable), Some(Kind::InDoubt));
            let passing = Status { retriable: true, ..failure };
            assert_eq!(kind_of(&passing, Effect::Rows), Some(Kind::InDoubt));
            assert_eq!(kind_of(&passing, Effect::Repeatable), Some(Kind::Unavailable));
        }
    }

    #[test]
    fn a_lost_call_is_in_doubt_unless_it_was_never_sent() {
        let unavailable = || tonic::Status::unavailable("broken pipe");
        assert_eq!(of_call(unavailable(), Effect::Rows, "insert").kind(), Kind::InDoubt);
        assert_eq!(of_call(unavailable(), Effect::Repeatable, "describe").kind(), Kind::Unavailable);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let unsent = tonic::Status::from_error(Box::new(ConnectError(refused.into())));
        assert_eq!(of_call(unsent, Effect::Rows, "insert").kind(), Kind::Unavailable);
        assert_eq!(of_silence(Effect::Rows, "insert").kind(), Kind::InDoubt);
        let large = tonic::Status::resource_exhausted(
            "grpc: received message larger than max (70000091 vs. 67108864)",
        );
        assert_eq!(of_call(large, Effect::Rows, "insert").kind(), Kind::Refused);
        let denied = of_call(
            tonic::Status::permission_denied("PrivilegeInsert: permission deny to weak"),
            Effect::Rows,
            "insert",
        );
        assert_eq!(denied.kind(), Kind::Denied);
        assert!(denied.hint_text().is_some());
    }
}
