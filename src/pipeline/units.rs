//! Sizes and durations as users write them: a whole number and a unit, `512MiB`, `200ms`.

use std::time::Duration;

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const MILLIS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Bytes from a text such as `512MiB`, or what to write instead.
pub fn parse_size(text: &str) -> Result<u64, String> {
    parse(text, &SIZES).ok_or_else(|| advice(text, &SIZES, "64MiB"))
}

/// A duration from a text such as `200ms`, or what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    parse(text, &MILLIS).map(Duration::from_millis).ok_or_else(|| advice(text, &MILLIS, "200ms"))
}

fn split(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start_matches(' '))
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = split(text);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn advice(text: &str, units: &[(&str, u64)], example: &str) -> String {
    let (number, unit) = split(text);
    let meant = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    match meant {
        Some((name, _)) if !number.is_empty() && *name != unit => format!("did you mean \"{number}{name}\"?"),
        Some((name, _)) if !number.is_empty() => format!("{number}{name} is more than can be counted"),
        _ => {
            let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
            format!(
                "write a whole number and a unit ({}), for example \"{example}\"",
                super::problem::either(&names)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("512 MiB"), Ok(512 << 20));
        assert_eq!(parse_size("3GB"), Ok(3_000_000_000));
        assert_eq!(parse_size("0B"), Ok(0));
    }

    #[test]
    fn durations_go_from_milliseconds_to_days() {
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1d"), Ok(Duration::from_secs(86_400)));
    }

    #[test]
    fn a_unit_in_the_wrong_case_is_answered_with_the_right_one() {
        assert_eq!(parse_size("512mb"), Err("did you mean \"512MB\"?".to_owned()));
        assert_eq!(parse_size("64mib"), Err("did you mean \"64MiB\"?".to_owned()));
        assert_eq!(parse_duration("10S"), Err("did you mean \"10s\"?".to_owned()));
    }

    #[test]
    fn anything_else_is_answered_with_the_units() {
        for text in ["", "512", "MiB", "1.5GiB", "-1MiB", "1 MiB ", "12 parsecs", "1MiB2"] {
            let advice = parse_size(text).unwrap_err();
            assert!(advice.contains("B, kB, MB, GB, TB, KiB, MiB, GiB or TiB"), "{text}: {advice}");
        }
        let advice = parse_duration("200").unwrap_err();
        assert_eq!(advice, "write a whole number and a unit (ms, s, m, h or d), for example \"200ms\"");
    }

    #[test]
    fn what_overflows_is_no_number() {
        assert_eq!(parse_size("99999999TiB"), Err("99999999TiB is more than can be counted".to_owned()));
        assert!(parse_size("999999999999999999999999B").is_err());
    }
}
