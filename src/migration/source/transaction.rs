//! `name.sql` without a number, that holds its own `BEGIN` … `COMMIT`: migrations written by hand beside generated ones.

use super::super::Metadata;
use super::super::lexer::{Lexer, Token};
use super::super::split::fold;
use super::layouts::{Halves, Layout, Page};
use super::names::Style;
use crate::error::Result;

pub(super) struct OwnTransaction;

impl Layout for OwnTransaction {
    fn name(&self) -> &'static str {
        "transaction"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        if page.style != Style::None {
            return None;
        }
        // Of a text that does not begin so, nothing more is looked at.
        let first = Lexer::new(page.text).map_while(std::result::Result::ok).find(Token::is_significant);
        let first = first.map(|token| token.text(page.text).to_ascii_lowercase()).unwrap_or_default();
        if !matches!(first.as_str(), "begin" | "start") {
            return None;
        }
        let text = fold(page.text).to_ascii_lowercase();
        let begins = ["begin;", "begin ", "start transaction"].iter().any(|word| text.starts_with(word));
        let ends = ["commit", "commit work", "commit transaction", "end"];
        let last = text.trim_end_matches([';', ' ']).rsplit(';').next().unwrap_or_default().trim();
        (begins && ends.contains(&last)).then_some("no number, and a BEGIN … COMMIT of its own")
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        Ok(Halves { up: page.whole(), down: None })
    }
}
