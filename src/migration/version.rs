//! The order of versions.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// A migration's version: numbers are compared as numbers, whatever their padding, the rest as text.
/// Versions that compare equal are equal: `1` and `001` are one version. The dashes of a date at the
/// beginning do not count: `2026-01-20` is the number 20260120.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub String);

/// A version's parts. A number sorts before a word.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part<'a> {
    /// Digits without leading zeros: how many, and which. No number is too long for this.
    Number(usize, Cow<'a, str>),
    Word(&'a str),
}

impl Version {
    /// The text, as the file spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let (mut date, mut rest) = match split_date(&self.0) {
            Some((date, rest)) => (Some(number(Cow::Owned(date.replace('-', "")))), rest),
            None => (None, self.0.as_str()),
        };
        std::iter::from_fn(move || {
            if let Some(date) = date.take() {
                return Some(date);
            }
            let digits = rest.chars().next()?.is_ascii_digit();
            let end = rest.find(|character: char| character.is_ascii_digit() != digits).unwrap_or(rest.len());
            let (part, after) = rest.split_at(end);
            rest = after;
            Some(if digits { number(Cow::Borrowed(part)) } else { Part::Word(part) })
        })
    }
}

fn number(digits: Cow<'_, str>) -> Part<'_> {
    let digits = match digits {
        Cow::Borrowed(digits) => Cow::Borrowed(digits.trim_start_matches('0')),
        Cow::Owned(digits) => Cow::Owned(digits.trim_start_matches('0').to_owned()),
    };
    Part::Number(digits.len(), digits)
}

/// The date `YYYY-MM-DD` that a text begins with, and what follows it.
pub(crate) fn split_date(text: &str) -> Option<(&str, &str)> {
    let (date, rest) = text.split_at_checked(10)?;
    let shaped = date.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    (shaped && !rest.starts_with(|next: char| next.is_ascii_digit())).then_some((date, rest))
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().for_each(|part| part.hash(state));
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.0 == other.0 {
            return Ordering::Equal;
        }
        self.parts().cmp(other.parts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version {
        Version(text.to_owned())
    }

    #[test]
    fn each_is_less_than_the_next() {
        let ordered = [
            "0",
            "1",
            "002",
            "2.1",
            "2.9",
            "2.10",
            "9",
            "10",
            "011",
            "999",
            "20251228_a",
            "2025-12-29_a",
            "2025-12-29_b",
            "20260101",
            "20260101120000",
            "1000000000000000000000000000000000000000",
            "2000000000000000000000000000000000000000",
            "add_users",
            "base",
        ];
        for (index, one) in ordered.iter().enumerate() {
            for other in &ordered[index + 1..] {
                assert!(version(one) < version(other), "{one} < {other}");
                assert_ne!(version(one), version(other));
            }
        }
    }

    #[test]
    fn padding_and_dashes_of_a_date_do_not_count() {
        assert_eq!(version("1"), version("001"));
        assert_eq!(version("2.1"), version("02.01"));
        assert_eq!(version("2026-01-20"), version("20260120"));
        assert_ne!(version("1"), version("1.0"));
        assert_ne!(version("2026-01-200"), version("20260120"));
    }

    proptest! {
        #[test]
        fn order_and_equality_agree(a in "[0-9a.é-]{0,14}", b in "[0-9a.é-]{0,14}", c in "[0-9a.]{0,6}") {
            let (a, b, c) = (version(&a), version(&b), version(&c));
            prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal);
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }
}
