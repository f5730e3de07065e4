//! What a plain scalar is taken for: the rules of YAML 1.2 as ruamel.yaml has them.

/// The types of scalars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number with fraction or exponent, infinity or not a number.
    Float,
    /// `true` or `false`.
    Boolean,
    /// The absent value.
    Null,
    /// A date, or date and time.
    Date,
}

/// What a plain text is taken for; nothing for `<<` and `=`, which are no values.
pub(super) fn plain(text: &str) -> Option<Kind> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Kind::Null),
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return Some(Kind::Boolean),
        "<<" | "=" => return None,
        _ => {}
    }
    let is_numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    Some(if !is_numeric {
        Kind::String
    } else if is_float(text) {
        Kind::Float
    } else if is_integer(text) {
        Kind::Integer
    } else if is_date(text) || is_time(text) {
        Kind::Date
    } else {
        Kind::String
    })
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn is_all(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(allowed)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && is_all(text, |byte| byte.is_ascii_digit())
}

fn is_digit_or_line(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'_'
}

fn is_float(text: &str) -> bool {
    let number = unsigned(text);
    if matches!(number, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (number, None),
    };
    let is_whole = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit()) && is_all(text, is_digit_or_line)
    };
    let has_exponent = exponent.is_some_and(|exponent| is_digits(unsigned(exponent)));
    match mantissa.split_once('.') {
        None => is_whole(mantissa) && has_exponent,
        Some(("", fraction)) => {
            // The one form whose exponent must have a sign.
            let has_signed = has_exponent && exponent.is_some_and(|e| e.starts_with(['-', '+']));
            !fraction.is_empty()
                && is_all(fraction, is_digit_or_line)
                && (exponent.is_none() || has_signed)
        }
        Some((whole, fraction)) => {
            is_whole(whole)
                && is_all(fraction, is_digit_or_line)
                && (exponent.is_none() || has_exponent)
        }
    }
}

fn is_integer(text: &str) -> bool {
    let number = unsigned(text);
    if text.starts_with('.') || number.is_empty() {
        return false;
    }
    let based = |prefix: &str, is_digit: fn(u8) -> bool| {
        number.strip_prefix(prefix).is_some_and(|digits| {
            !digits.is_empty() && is_all(digits, |byte| is_digit(byte) || byte == b'_')
        })
    };
    is_all(number, is_digit_or_line)
        || based("0b", |byte| matches!(byte, b'0' | b'1'))
        || based("0o", |byte| matches!(byte, b'0'..=b'7'))
        || based("0x", |byte| byte.is_ascii_hexdigit())
}

/// `2024-01-01`.
fn is_date(text: &str) -> bool {
    let mut parts = text.split('-');
    let is_next = |part: Option<&str>, len| part.is_some_and(|p| p.len() == len && is_digits(p));
    is_next(parts.next(), 4)
        && is_next(parts.next(), 2)
        && is_next(parts.next(), 2)
        && parts.next().is_none()
}

/// `2024-1-1 1:00:00.5 +01:00` and its many variants.
fn is_time(text: &str) -> bool {
    let mut rest = text;
    let digits = |rest: &mut &str, least: usize, most: usize| -> bool {
        let count = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        *rest = &rest[count..];
        count >= least
    };
    let skip = |rest: &mut &str, c: char| match rest.strip_prefix(c) {
        Some(after) => {
            *rest = after;
            true
        }
        None => false,
    };
    let is_day = digits(&mut rest, 4, 4)
        && skip(&mut rest, '-')
        && digits(&mut rest, 1, 2)
        && skip(&mut rest, '-')
        && digits(&mut rest, 1, 2);
    if !is_day {
        return false;
    }
    let after =
        rest.strip_prefix(['T', 't']).unwrap_or_else(|| rest.trim_start_matches([' ', '\t']));
    if after.len() == rest.len() {
        return false;
    }
    rest = after;
    let is_clock = digits(&mut rest, 1, 2)
        && skip(&mut rest, ':')
        && digits(&mut rest, 2, 2)
        && skip(&mut rest, ':')
        && digits(&mut rest, 2, 2);
    if !is_clock {
        return false;
    }
    if skip(&mut rest, '.') {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let zone = rest.trim_start_matches([' ', '\t']);
    if rest.is_empty() || zone == "Z" {
        return true;
    }
    let Some(mut zone) = zone.strip_prefix(['-', '+']) else { return false };
    digits(&mut zone, 1, 2)
        && (zone.is_empty() || skip(&mut zone, ':') && digits(&mut zone, 2, 2) && zone.is_empty())
}

/// What Python writes for a plain value of `kind` that was read from `text`; nothing if that is
/// not worked out here.
pub(super) fn rewritten(text: &str, kind: Kind) -> Option<String> {
    match kind {
        Kind::String => Some(text.to_owned()),
        Kind::Null => Some(String::new()),
        Kind::Boolean => Some(text.to_lowercase()),
        Kind::Integer => integer(text),
        Kind::Float => is_simple_float(text).then(|| text.to_owned()),
        Kind::Date => is_real_date(text).then(|| text.to_owned()),
    }
}

/// Decimal digits keep their leading zeros, of which a minus sign takes one; a plus sign goes.
fn integer(text: &str) -> Option<String> {
    let digits = unsigned(text);
    if !is_digits(digits) || digits.len() > 30 {
        return None;
    }
    let value: i128 = digits.parse().ok()?;
    let value = if text.starts_with('-') { -value } else { value };
    let width = if digits.starts_with('0') { digits.len() } else { 0 };
    Some(format!("{value:0width$}"))
}

/// A float whose digits survive the way through a floating point number.
fn is_simple_float(text: &str) -> bool {
    const EXACT_DIGITS: usize = 15;
    let number = text.strip_prefix('-').unwrap_or(text);
    match (number.split_once(['e', 'E']), number.split_once('.')) {
        (Some((mantissa, exponent)), _) => is_simple_power(mantissa, unsigned(exponent)),
        (None, Some((whole, rest))) => {
            number.len() <= EXACT_DIGITS + 1 && is_digits(whole) && is_digits(rest)
        }
        (None, None) => false,
    }
}

/// `5e-4`, `12e3`, `1.25e10`: the digits of powers are scaled, which few of them survive.
fn is_simple_power(mantissa: &str, exponent: &str) -> bool {
    let is_first = mantissa.starts_with(|c: char| matches!(c, '1'..='9'));
    let is_exact = match mantissa.split_once('.') {
        Some((whole, rest)) => whole.len() == 1 && is_digits(rest) && rest.len() <= 8,
        None => is_digits(mantissa) && mantissa.len() <= 6,
    };
    let is_small = is_digits(exponent) && exponent.len() <= 2;
    is_first && is_exact && is_small && exponent.bytes().any(|byte| byte != b'0')
}

fn is_real_date(text: &str) -> bool {
    let part =
        |from: usize, to: usize| text.get(from..to).and_then(|part| part.parse::<u32>().ok());
    let (Some(year), Some(month), Some(day)) = (part(0, 4), part(5, 7), part(8, 10)) else {
        return false;
    };
    // The days that every month has: a wrong date is refused by DVC, a late one only by us.
    is_date(text) && year > 0 && (1..=12).contains(&month) && (1..=28).contains(&day)
}
