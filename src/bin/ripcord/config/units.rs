//! Durations, sizes and yes-or-no words, as people write them.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `30s`, `5m`, `1h30m`, `250ms`, `7d`. A bare number is refused: a person cannot see its unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("a duration needs a unit: write `{text}s` or `{text}ms`"));
    }
    let refuse = || format!("`{text}` is not a duration such as `250ms`, `30s`, `5m`, `1h30m` or `7d`");
    let mut rest = text;
    let mut total = 0_u64;
    let mut smallest = u64::MAX;
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let (count, after) = leading_number(rest).ok_or_else(refuse)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, millis) = DURATION_UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(refuse)?;
        // `30m1h` and `5s5s` are slips of the hand, not durations.
        if *millis >= smallest {
            return Err(refuse());
        }
        smallest = *millis;
        total = count
            .checked_mul(*millis)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("`{text}` is too long"))?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// A share such as `10%` or `0.5%`: more than nothing, at most all.
pub fn percent(text: &str) -> Result<f64, String> {
    let refuse = || format!("`{text}` is not a share such as `10%`, up to `100%`");
    let number: f64 = text.trim().strip_suffix('%').ok_or_else(refuse)?.trim().parse().map_err(|_| refuse())?;
    if number > 0.0 && number <= 100.0 { Ok(number) } else { Err(refuse()) }
}

/// A number of `unit_millis`, as a guide's variable has it; with a unit of its own, that one counts.
pub fn guide_duration(text: &str, unit_millis: u64) -> Result<Duration, String> {
    let text = text.trim();
    match text.parse::<u64>() {
        Ok(count) => {
            count.checked_mul(unit_millis).map(Duration::from_millis).ok_or_else(|| format!("`{text}` is too long"))
        }
        Err(_) => duration(text),
    }
}

/// `1h30m`, `250ms`: the inverse of [`duration`].
pub fn show_duration(value: Duration) -> String {
    let mut millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in DURATION_UNITS.iter().rev().skip(1) {
        let count = millis / size;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            millis %= size;
        }
    }
    text
}

/// `2GiB`, `500MB`, in bytes. A bare number is refused.
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let refuse = || format!("`{text}` is not a size such as `500MB` or `2GiB`");
    let (count, unit) = leading_number(text).ok_or_else(refuse)?;
    if unit.is_empty() {
        return Err(format!("a size needs a unit: write `{text}MB` or `{text}MiB`"));
    }
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).ok_or_else(refuse)?;
    count.checked_mul(*bytes).ok_or_else(|| format!("`{text}` is too large"))
}

/// `2.0 GiB`, for people.
pub fn show_size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// `true`, `1`, `yes`, `on` and their opposites, in any case.
pub fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("`{text}` is neither `true` nor `false`")),
    }
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_its_sign_and_is_some() {
        assert_eq!(percent("10%"), Ok(10.0));
        assert_eq!(percent(" 0.5 %"), Ok(0.5));
        for odd in ["10", "0%", "-1%", "101%", "NaN%", "inf%", "%", "ten%"] {
            assert!(percent(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn durations_are_read_as_written() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("1m 30s", 90_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_bare_number_is_refused_with_both_spellings() {
        let message = duration("300").unwrap_err();
        assert!(message.contains("`300s`") && message.contains("`300ms`"), "{message}");
        let message = size("500").unwrap_err();
        assert!(message.contains("`500MB`") && message.contains("`500MiB`"), "{message}");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "s", "5 minutes", "-5s", "1.5h", "30m1h", "5s5s", "99999999999999999999s", "300000000000w"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "GB", "2XB", "-1GB", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_survives_being_shown() {
        for millis in [0, 1, 999, 1_000, 61_000, 5_400_000, 604_800_001] {
            let value = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(value)), Ok(value));
        }
    }

    #[test]
    fn a_guides_number_has_its_guides_unit() {
        assert_eq!(guide_duration("300", 1_000), Ok(Duration::from_secs(300)));
        assert_eq!(guide_duration("300000", 1), Ok(Duration::from_secs(300)));
        assert_eq!(guide_duration("5m", 1), Ok(Duration::from_secs(300)));
        assert!(guide_duration("soon", 1).is_err());
    }

    #[test]
    fn sizes_are_read_as_written() {
        assert_eq!(size("500MB"), Ok(500_000_000));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("2gib"), Ok(2 << 30));
        assert_eq!(size("1 TB"), Ok(1_000_000_000_000));
    }
}
