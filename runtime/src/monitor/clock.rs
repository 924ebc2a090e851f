//! The time of day for records and logs; deadlines use [`std::time::Instant`], which is monotonic.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-11-22T04:05:06.123456789Z`
pub(super) const STAMP_BYTES: usize = 30;

/// RFC 3339 with nanoseconds, written without allocation; the date is kept for the rest of its second.
#[derive(Debug)]
pub(super) struct Stamp {
    second: i64,
    text: [u8; STAMP_BYTES],
}

/// Nanoseconds since 1970.
pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

// === impl Stamp ===

impl Stamp {
    pub(super) const fn new() -> Self {
        Self { second: i64::MIN, text: *b"0000-00-00T00:00:00.000000000Z" }
    }

    /// The text for a time.
    pub(super) fn at(&mut self, time_ns: i64) -> &[u8; STAMP_BYTES] {
        let second = time_ns.div_euclid(1_000_000_000);
        if second != self.second {
            self.second = second;
            let (year, month, day) = date(second.div_euclid(86_400));
            let time = second.rem_euclid(86_400);
            for (from, to, value) in [
                (0, 4, year),
                (5, 7, month),
                (8, 10, day),
                (11, 13, time / 3600),
                (14, 16, time / 60 % 60),
                (17, 19, time % 60),
            ] {
                digits(&mut self.text[from..to], value);
            }
        }
        digits(&mut self.text[20..29], time_ns.rem_euclid(1_000_000_000));
        &self.text
    }

    /// The text for the last time asked for.
    pub(super) fn text(&self) -> &[u8; STAMP_BYTES] {
        &self.text
    }
}

fn digits(text: &mut [u8], mut value: i64) {
    for digit in text.iter_mut().rev() {
        // A remainder of ten.
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// Year, month and day of a day since 1970 in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of a year, in eras of 400 years.
fn date(day: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let day = day + 719_468; // from 0000-03-01
    let era = day.div_euclid(ERA_DAYS);
    let day = day.rem_euclid(ERA_DAYS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // from March
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_rfc_3339() {
        let mut stamp = Stamp::new();
        for (time_ns, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (951_868_799_999_999_999, "2000-02-29T23:59:59.999999999Z"),
            (951_868_800_000_000_000, "2000-03-01T00:00:00.000000000Z"),
            (1_709_164_800_120_000_000, "2024-02-29T00:00:00.120000000Z"),
            (1_795_320_306_000_000_042, "2026-11-22T04:05:06.000000042Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(std::str::from_utf8(stamp.at(time_ns)).unwrap(), expected);
        }
    }

    #[test]
    fn every_day_has_its_date() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for number in 0..200_000 {
            assert_eq!(date(number), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let days = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > days {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }
}
