//! Numbers for people: `1.2 GB`, `154 MB/s`, `1,234,567`, `2 min 05 s`.

use std::time::Duration;

const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];

/// A size in powers of 1000, two or three digits of it.
pub fn bytes(bytes: u64) -> String {
    quantity(bytes as f64)
}

/// A rate of bytes.
pub fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", quantity(bytes_per_second))
}

fn quantity(bytes: f64) -> String {
    // Adding zero turns a negative one into a plain one.
    let mut value = bytes.max(0.0) + 0.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // What would be rounded to 1000 belongs to the next unit.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    // 9.95 would be rounded to 10.0.
    if value < 9.95 && unit != UNITS[0] { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Megabytes with one digit after the point, for columns.
pub fn megabytes(bytes: u64) -> String {
    let tenths = (u128::from(bytes) + 50_000) / 100_000;
    let whole = u64::try_from(tenths / 10).unwrap_or(u64::MAX);
    format!("{}.{}", count(whole), tenths % 10)
}

/// A number with separators between thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration, to two units at most.
pub fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A text of at most `width` characters, with its middle left out if need be: names differ at their ends.
pub fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let front = kept / 2;
    let start = text.chars().take(front);
    let end = text.chars().skip(length - (kept - front));
    start.chain(['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_three_digits() {
        for (size, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_960, "10 kB"),
            (154_200_000, "154 MB"),
            (999_499_999, "999 MB"),
            (999_500_000, "1.0 GB"),
            (1_234_567_890, "1.2 GB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(rate(154_000_000.4), "154 MB/s");
        assert_eq!(rate(-0.0), "0 B/s");
        assert_eq!(rate(f64::NAN), "0 B/s");
    }

    #[test]
    fn counts_have_separators() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn megabytes_are_rounded_to_tenths() {
        for (size, text) in [(0, "0.0"), (49_999, "0.0"), (50_000, "0.1"), (1_234_567_890, "1,234.6")] {
            assert_eq!(megabytes(size), text);
        }
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_999, "59.9 s"),
            (125_000, "2 min 05 s"),
            (4_800_000, "1 h 20 min"),
            (180_000_000, "2 d 02 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(shortened("orders", 6), "orders");
        assert_eq!(shortened("default.orders_2026", 10), "defa…_2026");
        assert_eq!(shortened("éééééé", 3), "é…é");
    }
}
