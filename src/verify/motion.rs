//! When a difference is one, while both sides move.
//!
//! A row that differs may just be on its way. So it is read again: at the source, then, once F has passed the time of
//! that reading, on the target, and at the source once more. It is equal as soon as the target shows what one of the
//! two readings of the source shows. It differs if the source was unchanged in between, twice in a row with the same
//! outcome on both sides. (Once may be a row that was changed and changed back in the meantime.) All else is motion.

/// How F stands to the time that had to be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// It has passed it: everything that the source had shown by then is on the target.
    Passed,
    /// It does not move: nobody is going to bring about anything on the target.
    Standing,
}

/// What is known of one row, or of one other thing that may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Equal,
    Differs,
    Moving,
}

/// What was read of one thing; `None` is that it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readings<T> {
    /// At the source, before F had passed that time.
    pub(super) before: Option<T>,
    /// On the target, after that.
    pub(super) target: Option<T>,
    /// At the source, after that.
    pub(super) after: Option<T>,
}

/// Follows one thing from reading to reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Motion<T> {
    /// Source and target when they were last seen to differ while the source was at rest.
    at_rest: Option<(Option<T>, Option<T>)>,
}

impl<T: Copy + Eq> Motion<T> {
    pub(super) fn new() -> Motion<T> {
        Motion { at_rest: None }
    }

    /// Takes readings in.
    pub(super) fn observe(&mut self, readings: Readings<T>, beyond: Beyond) -> Verdict {
        let Readings { before, target, after } = readings;
        if target == before || target == after {
            return Verdict::Equal;
        }
        if before != after {
            self.at_rest = None;
            return Verdict::Moving;
        }
        let seen = (after, target);
        if beyond == Beyond::Standing || self.at_rest == Some(seen) {
            return Verdict::Differs;
        }
        self.at_rest = Some(seen);
        Verdict::Moving
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn readings(before: u8, target: u8, after: u8) -> Readings<u8> {
        // Zero stands for a row that is not there.
        let row = |value: u8| (value > 0).then_some(value);
        Readings { before: row(before), target: row(target), after: row(after) }
    }

    fn verdicts(all: &[(u8, u8, u8)]) -> Vec<Verdict> {
        let mut motion = Motion::new();
        all.iter()
            .map(|(before, target, after)| motion.observe(readings(*before, *target, *after), Beyond::Passed))
            .collect()
    }

    #[test]
    fn a_row_that_arrives_is_equal() {
        assert_eq!(verdicts(&[(1, 1, 1)]), [Verdict::Equal]);
        assert_eq!(verdicts(&[(1, 2, 2)]), [Verdict::Equal]);
        assert_eq!(verdicts(&[(0, 0, 0)]), [Verdict::Equal]);
        assert_eq!(verdicts(&[(1, 0, 2), (2, 2, 3)]), [Verdict::Moving, Verdict::Equal]);
    }

    #[test]
    fn a_row_that_stays_away_differs_at_the_second_look() {
        assert_eq!(verdicts(&[(1, 0, 1), (1, 0, 1)]), [Verdict::Moving, Verdict::Differs]);
        assert_eq!(verdicts(&[(0, 3, 0), (0, 3, 0)]), [Verdict::Moving, Verdict::Differs]);
    }

    #[test]
    fn changed_and_changed_back_is_motion() {
        // The source had 2 for a moment, which the target shows.
        assert_eq!(verdicts(&[(1, 2, 1), (1, 1, 1)]), [Verdict::Moving, Verdict::Equal]);
        let moving = [Verdict::Moving; 4];
        assert_eq!(verdicts(&[(1, 9, 1), (1, 9, 2), (2, 9, 2), (2, 8, 2)]), moving);
    }

    #[test]
    fn what_nobody_is_going_to_change_differs_at_once() {
        assert_eq!(Motion::new().observe(readings(1, 0, 1), Beyond::Standing), Verdict::Differs);
        assert_eq!(Motion::new().observe(readings(1, 0, 2), Beyond::Standing), Verdict::Moving);
    }

    proptest! {
        /// A target that follows the source at some distance, and has caught up with each reading before it is asked
        /// itself, is never found to differ: it shows a state from between the two readings of the source, and twice
        /// in a row the same other state than an unchanged source can't be that.
        #[test]
        fn a_follower_never_differs(history in prop::collection::vec(1_u8..4, 2..40), steps in prop::collection::vec((0_usize..3, 0_usize..3, 0_usize..3), 1..12)) {
            // Each state is another one: no change back.
            let state = |at: usize| at.min(history.len() - 1);
            let mut motion = Motion::new();
            let mut now = 0;
            for (to_target, behind, to_after) in steps {
                let before = state(now);
                let target = state(before + to_target);
                let after = state(target + behind + to_after);
                now = after;
                let readings = Readings { before: Some(before), target: Some(target), after: Some(after) };
                prop_assert_ne!(motion.observe(readings, Beyond::Passed), Verdict::Differs);
            }
        }
    }
}
