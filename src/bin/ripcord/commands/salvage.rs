//! `salvage`: the rows that only a database kept aside has.

use ripcord::Result;
use ripcord::ops::report::Outcome;
use ripcord::ops::salvage::{self, Format, OfTable, Request};

use crate::app::{App, Exit};
use crate::args::{SalvageArgs, SalvageFormat};

/// Runs it.
pub async fn run(app: &App, args: SalvageArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let format = match args.format {
        SalvageFormat::Sql => Format::Sql,
        SalvageFormat::Csv => Format::Csv,
    };
    let request = Request { from: args.from, format, output: args.output };
    let salvaged = salvage::salvage(&ctx, &request).await?;
    for table in &salvaged.tables {
        app.out.data(&told(table));
    }
    let more = match salvaged.tables.iter().filter(|table| table.missing + table.conflicts > 0).count() {
        0 => "it has no row that the target has not".to_owned(),
        tables => format!(
            "{} rows and {} conflicts in {tables} tables are in `{}`; nothing was written to a database",
            salvaged.missing,
            salvaged.conflicts,
            salvaged.file.display()
        ),
    };
    app.out.say(&format!("from `{}`: {more}", salvaged.from));
    app.out.items("salvage", Outcome::Done, &[salvaged]);
    Ok(Exit::DONE)
}

fn told(table: &OfTable) -> String {
    let note = table.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
    format!(
        "{}: {} missing, {} conflicts, {} only in the target{note}",
        table.table, table.missing, table.conflicts, table.only_in_target
    )
}
