//! Kubernetes' quantities: `1.5Gi`, `10M`, `250m`, `1e6`, as `k8s.io/apimachinery/pkg/api/resource` reads them.

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It is not a number followed by a known suffix.
    #[error(
        "not a quantity: a number, then nothing or one of n u m k M G T P E Ki Mi Gi Ti Pi Ei or an exponent"
    )]
    Syntax,
    /// It is below zero.
    #[error("negative quantity")]
    Negative,
    /// It does not fit 64 bits.
    #[error("quantity is too large")]
    TooLarge,
}

/// Reads a quantity that is not negative; parts of one are rounded up, as Kubernetes does.
pub(crate) fn parse(text: &str) -> Result<u64, QuantityError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(QuantityError::Syntax);
    }
    let scale = scale(suffix)?;
    let value = Decimal::new(whole, fraction)?.scaled(scale)?;
    if negative && value > 0 { Err(QuantityError::Negative) } else { Ok(value) }
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    /// A power of ten.
    Ten(i32),
    /// A power of two.
    Two(u32),
}

/// An unsigned decimal number: `digits` × 10^`exponent`.
struct Decimal {
    digits: u128,
    exponent: i32,
}

fn scale(suffix: &str) -> Result<Scale, QuantityError> {
    Ok(match suffix {
        "" => Scale::Ten(0),
        "n" => Scale::Ten(-9),
        "u" => Scale::Ten(-6),
        "m" => Scale::Ten(-3),
        "k" => Scale::Ten(3),
        "M" => Scale::Ten(6),
        "G" => Scale::Ten(9),
        "T" => Scale::Ten(12),
        "P" => Scale::Ten(15),
        "E" => Scale::Ten(18),
        "Ki" => Scale::Two(10),
        "Mi" => Scale::Two(20),
        "Gi" => Scale::Two(30),
        "Ti" => Scale::Two(40),
        "Pi" => Scale::Two(50),
        "Ei" => Scale::Two(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Syntax)?;
            Scale::Ten(exponent.parse::<i16>().map_err(|_| QuantityError::Syntax)?.into())
        }
    })
}

// === impl Decimal ===

impl Decimal {
    fn new(whole: &str, fraction: &str) -> Result<Self, QuantityError> {
        let fraction = fraction.trim_end_matches('0');
        let mut digits: u128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()).map(|byte| u128::from(byte - b'0')) {
            digits = digits
                .checked_mul(10)
                .and_then(|digits| digits.checked_add(digit))
                .ok_or(QuantityError::TooLarge)?;
        }
        let exponent = i32::try_from(fraction.len()).map_err(|_| QuantityError::TooLarge)?;
        Ok(Self { digits, exponent: -exponent })
    }

    /// The number times `scale`, rounded up.
    fn scaled(self, scale: Scale) -> Result<u64, QuantityError> {
        if self.digits == 0 {
            return Ok(0);
        }
        let (digits, exponent) = match scale {
            Scale::Ten(power) => (Some(self.digits), self.exponent + power),
            Scale::Two(power) => (self.digits.checked_mul(1 << power), self.exponent),
        };
        let digits = digits.ok_or(QuantityError::TooLarge)?;
        let power = 10_u128.checked_pow(exponent.unsigned_abs());
        let value = if exponent < 0 {
            // A divisor beyond 128 bits is larger than any digits: what is left rounds up to one.
            power.map_or(1, |power| digits.div_ceil(power))
        } else {
            power.and_then(|power| digits.checked_mul(power)).ok_or(QuantityError::TooLarge)?
        };
        u64::try_from(value).map_err(|_| QuantityError::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_quantities() {
        let check = |text: &str, expect| assert_eq!(parse(text), expect, "{text:?}");
        check("0", Ok(0));
        check("-0", Ok(0));
        check("10", Ok(10));
        check("+10", Ok(10));
        check("10M", Ok(10_000_000));
        check("1.5G", Ok(1_500_000_000));
        check(".5k", Ok(500));
        check("5.k", Ok(5000));
        check("1Ki", Ok(1024));
        check("0.5Ki", Ok(512));
        check("1e3", Ok(1000));
        check("1E3", Ok(1000));
        check("1E", Ok(1_000_000_000_000_000_000));
        check("2500e-3", Ok(3));
        check("100m", Ok(1));
        check("1n", Ok(1));
        check("1e-400", Ok(1));
        check("0e400", Ok(0));
        check("16Ei", Err(QuantityError::TooLarge));
        check("1e400", Err(QuantityError::TooLarge));
        check(&"9".repeat(60), Err(QuantityError::TooLarge));
        check("-5", Err(QuantityError::Negative));
        for text in ["", "-", ".", "1.2.3", "M", "1K", "1 M", "1e", "1e1.5", "0x10", "١", "1mi", "1e99999999"]
        {
            check(text, Err(QuantityError::Syntax));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            // Only that it returns matters here.
            let _read = parse(&text);
        }

        #[test]
        fn whole_numbers_read_back(value: u64) {
            prop_assert_eq!(parse(&value.to_string()), Ok(value));
        }

        #[test]
        fn suffixes_multiply(value in 0_u64..1 << 20) {
            prop_assert_eq!(parse(&format!("{value}k")), Ok(value * 1000));
            prop_assert_eq!(parse(&format!("{value}Mi")), Ok(value << 20));
            prop_assert_eq!(parse(&format!("{value}000m")), Ok(value));
        }
    }
}
