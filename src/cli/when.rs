//! Points in time as people write them.

use std::time::Duration;

use time::format_description::well_known::Rfc3339;
use time::macros::{format_description, time};
use time::{Date, OffsetDateTime, PrimitiveDateTime};

/// A point in time, or so long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(OffsetDateTime),
    Ago(Duration),
}

impl When {
    pub(super) fn at(self, now: OffsetDateTime) -> OffsetDateTime {
        match self {
            Self::At(time) => time,
            Self::Ago(length) => now.saturating_sub(time::Duration::try_from(length).unwrap_or(time::Duration::MAX)),
        }
    }
}

/// Reads `24h`, `2026-05-01`, `2026-05-01T12:00` or RFC 3339; what names no offset is UTC.
pub(super) fn when(text: &str) -> Result<When, String> {
    if let Some(length) = ago(text) {
        return Ok(When::Ago(length));
    }
    let minutes = format_description!("[year]-[month]-[day]T[hour]:[minute]");
    let seconds = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let day = format_description!("[year]-[month]-[day]");
    let utc = |time: PrimitiveDateTime| time.assume_utc();
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| PrimitiveDateTime::parse(text, &seconds).map(utc))
        .or_else(|_| PrimitiveDateTime::parse(text, &minutes).map(utc))
        .or_else(|_| Date::parse(text, &day).map(|date| utc(date.with_time(time!(0:00)))))
        .map(When::At)
        .map_err(|_| "write a time as 24h (ago), 2026-05-01, 2026-05-01T12:00 or 2026-05-01T12:00:00+02:00".to_owned())
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = datetime!(2026-05-02 12:00 UTC);
        for (text, at) in [
            ("24h", datetime!(2026-05-01 12:00 UTC)),
            ("90s", datetime!(2026-05-02 11:58:30 UTC)),
            ("1w", datetime!(2026-04-25 12:00 UTC)),
            ("2026-05-01", datetime!(2026-05-01 0:00 UTC)),
            ("2026-05-01T06:30", datetime!(2026-05-01 6:30 UTC)),
            ("2026-05-01T06:30:15", datetime!(2026-05-01 6:30:15 UTC)),
            ("2026-05-01T06:30:15Z", datetime!(2026-05-01 6:30:15 UTC)),
            ("2026-05-01T06:30:15+02:00", datetime!(2026-05-01 4:30:15 UTC)),
        ] {
            assert_eq!(when(text).unwrap().at(now), at, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_told() {
        for text in
            ["", "yesterday", "24", "h", "-1h", "1.5h", "2026-13-01", "99999999999999999999d", "2026-05-01 12:00"]
        {
            assert!(when(text).unwrap_err().starts_with("write a time as"), "{text}");
        }
        assert_eq!(when("9999999999999w").unwrap().at(datetime!(2026-05-02 12:00 UTC)).year(), -9999);
    }
}
