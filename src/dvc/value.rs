//! How Python, and so DVC in its templates, prints the value of a scalar.

use crate::dvc::yaml::Scalar;

/// The text that a scalar becomes inside other text: `1.50` is `1.5`, `012` is `12`.
pub(super) fn display(scalar: &Scalar) -> String {
    if !scalar.is_plain {
        return scalar.text.clone();
    }
    if scalar.is_null() {
        return "None".to_owned();
    }
    if let Some(value) = scalar.as_bool() {
        return value.to_string();
    }
    number(&scalar.text).unwrap_or_else(|| scalar.text.clone())
}

/// A number of YAML 1.2 as Python prints it; nothing if `text` is none.
pub(super) fn number(text: &str) -> Option<String> {
    let text = text.replace('_', "");
    integer(&text).map(|value| value.to_string()).or_else(|| float(&text).map(print_float))
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let (digits, radix) = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| Some((digits.strip_prefix(prefix)?, radix)))
        .unwrap_or((digits, 10));
    // Also keeps out a second sign, which `from_str_radix` would take.
    let is_digits = digits.chars().all(|digit| digit.is_digit(radix));
    if is_digits {
        i128::from_str_radix(digits, radix).ok().map(|value| sign * value)
    } else {
        None
    }
}

fn float(text: &str) -> Option<f64> {
    match text.trim_start_matches(['+', '-']) {
        ".inf" | ".Inf" | ".INF" if text.starts_with('-') => return Some(f64::NEG_INFINITY),
        ".inf" | ".Inf" | ".INF" => return Some(f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    // Rust also reads words such as `inf`, which are strings here.
    let is_number =
        text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    if is_number { text.parse().ok() } else { None }
}

/// Python's `repr`: as Rust's debug output, but for the form of the exponent.
pub(super) fn print_float(value: f64) -> String {
    let text = format!("{value:?}").to_lowercase();
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text;
    };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_print_as_python_prints_them() {
        for (text, printed) in [
            ("0.1", "0.1"),
            ("1.50", "1.5"),
            ("1e3", "1000.0"),
            (".5", "0.5"),
            ("5.", "5.0"),
            ("1e16", "1e+16"),
            ("0.00001", "1e-05"),
            ("1.5e-7", "1.5e-07"),
            ("1e100", "1e+100"),
            ("123", "123"),
            ("012", "12"),
            ("-7", "-7"),
            ("+7", "7"),
            ("1_000", "1000"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("0b11", "3"),
            (".inf", "inf"),
            ("-.inf", "-inf"),
            (".nan", "nan"),
            ("True", "true"),
            ("null", "None"),
            ("yes", "yes"),
            ("inf", "inf"),
            ("2024-01-01", "2024-01-01"),
            ("1.2.3", "1.2.3"),
            ("--1", "--1"),
            ("0x", "0x"),
        ] {
            let scalar = Scalar { text: text.to_owned(), is_plain: true };
            assert_eq!(display(&scalar), printed, "{text}");
        }
    }

    #[test]
    fn quoted_scalars_print_as_they_are() {
        let scalar = Scalar { text: "012".to_owned(), is_plain: false };
        assert_eq!(display(&scalar), "012");
    }
}
