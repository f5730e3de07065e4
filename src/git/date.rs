//! Dates as they stand in `name@{date}`.

/// Seconds since 1970 of `YYYY-MM-DD` (that day's start) or of an ISO date-time, in UTC unless it
/// carries an offset; nothing if it is not a date.
pub(super) fn parse(text: &str) -> Option<i64> {
    // All positions below are bytes; without this a slice could cut a character.
    if !text.is_ascii() || text.len() < 10 {
        return None;
    }
    let (date, rest) = text.split_at(10);
    let day_start = parse_day(date)? * 86_400;
    match rest.as_bytes().first() {
        None => Some(day_start),
        Some(b'T' | b't' | b' ') => Some(day_start + parse_time(&rest[1..])?),
        Some(_) => None,
    }
}

fn parse_day(text: &str) -> Option<i64> {
    let (year, month, day) = (digits(&text[..4])?, digits(&text[5..7])?, digits(&text[8..10])?);
    let is_dashed = &text[4..5] == "-" && &text[7..8] == "-";
    let is_valid = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    (is_dashed && is_valid).then(|| days_since_1970(year, month, day))
}

/// Parses `HH:MM[:SS][Z|+HH:MM|-HH:MM]` into seconds, the offset taken off.
fn parse_time(text: &str) -> Option<i64> {
    let zone_at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (clock, zone) = text.split_at(zone_at);
    let seconds = match clock.len() {
        5 => 0,
        8 if &clock[5..6] == ":" => digits(&clock[6..8])?,
        _ => return None,
    };
    let time = parse_clock(&clock[..5])? + (seconds <= 60).then_some(seconds)?;
    match zone {
        "" | "Z" | "z" => Some(time),
        _ if zone.starts_with('+') => Some(time - parse_clock(&zone[1..])?),
        _ => Some(time + parse_clock(zone.get(1..)?)?),
    }
}

/// Parses `HH:MM` into seconds.
fn parse_clock(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)
}

fn two_digits(text: &str) -> Option<i64> {
    if text.len() == 2 { digits(text) } else { None }
}

fn digits(text: &str) -> Option<i64> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts days from whole years, then from the months before; both are at most a few thousand.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let before = |year: i64| {
        let last = year - 1;
        last * 365 + last.div_euclid(4) - last.div_euclid(100) + last.div_euclid(400)
    };
    let in_months: i64 = (1..month).map(|earlier| days_in(year, earlier)).sum();
    before(year) - before(1970) + in_months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_start_of_their_day_in_utc() {
        assert_eq!(parse("1970-01-01"), Some(0));
        assert_eq!(parse("2000-02-29"), Some(951_782_400));
        assert_eq!(parse("2026-01-31"), Some(1_769_817_600));
        assert_eq!(parse("1969-12-31"), Some(-86_400));
    }

    #[test]
    fn date_times_may_carry_seconds_and_an_offset() {
        let noon = 1_769_817_600 + 12 * 3600;
        for text in [
            "2026-01-31T12:00",
            "2026-01-31 12:00:00",
            "2026-01-31T12:00:00Z",
            "2026-01-31T14:00:00+02:00",
            "2026-01-31T10:30:00-01:30",
        ] {
            assert_eq!(parse(text), Some(noon), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "upstream",
            "yesterday",
            "2026-13-01",
            "2026-02-29",
            "2026-1-1",
            "2026-01-31T",
            "2026-01-31T25:00",
            "2026-01-31T12:00:00+2",
            "2026-01-31x",
            "2026/01/31",
            "+026-01-31",
            "2026-01-31T12:0é",
            "2026-01-31T12:00:0",
            "2026-01-31T12:00-",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
