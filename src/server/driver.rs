//! The `mysql` crate's questions to a server, with what it leaves to its callers: an answer that
//! is not of the shape asked for is an error, one that panics the crate too (it looks into
//! packets without asking whether they are long enough), and no answer is collected without an
//! end. Used for everything but the rows of tables.

use std::cell::Cell;
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mysql::prelude::{AsStatement, FromRow, Protocol, Queryable};
use mysql::{Conn, Params, QueryResult, Row, Statement, Value};

/// What a catalog comes to at most, in bytes as the server sends it: some two million columns.
const MAX_ANSWER: usize = 1 << 30;
/// What a value takes up beside its bytes.
const VALUE: usize = 16;

thread_local! {
    static CALLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in the driver. A panic there is caught, and tells of the server: it is
/// none of ours to report.
pub fn is_calling() -> bool {
    CALLING.get()
}

/// Calls the driver; what panics it is an error of the connection, which is not to be used again.
pub(crate) fn guarded<T>(call: impl FnOnce() -> mysql::Result<T>) -> mysql::Result<T> {
    let before = CALLING.replace(true);
    let done = catch_unwind(AssertUnwindSafe(call));
    CALLING.set(before);
    done.unwrap_or_else(|_| Err(broken("the server sent what nobody understands")))
}

fn broken(what: &str) -> mysql::Error {
    mysql::Error::IoError(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// The driver's methods of these names, guarded.
pub(crate) trait Ask {
    /// All rows.
    fn query<T: FromRow, Q: AsRef<str>>(&mut self, query: Q) -> mysql::Result<Vec<T>>;
    /// All rows of each of some queries, which go to the server together; or how many it answered,
    /// and what was wrong with the next.
    fn query_each<T: FromRow>(
        &mut self,
        queries: &[String],
    ) -> Result<Vec<Vec<T>>, (usize, mysql::Error)>;
    /// The first row.
    fn query_first<T: FromRow, Q: AsRef<str>>(&mut self, query: Q) -> mysql::Result<Option<T>>;
    /// No row.
    fn query_drop<Q: AsRef<str>>(&mut self, query: Q) -> mysql::Result<()>;
    /// The first row of a statement with parameters.
    fn exec_first<T: FromRow, S: AsStatement, P: Into<Params>>(
        &mut self,
        statement: S,
        parameters: P,
    ) -> mysql::Result<Option<T>>;
    /// A statement made ready to be executed, until [`Ask::close`].
    fn prepare(&mut self, statement: &str) -> mysql::Result<Statement>;
    /// Forgets a statement.
    fn close(&mut self, statement: Statement) -> mysql::Result<()>;
}

impl Ask for Conn {
    fn query<T: FromRow, Q: AsRef<str>>(&mut self, query: Q) -> mysql::Result<Vec<T>> {
        guarded(|| all(Queryable::query_iter(self, query)?))
    }

    fn query_each<T: FromRow>(
        &mut self,
        queries: &[String],
    ) -> Result<Vec<Vec<T>>, (usize, mysql::Error)> {
        let mut found = Vec::with_capacity(queries.len());
        let done = guarded(|| {
            let answer = Queryable::query_iter(self, queries.join(";"))?;
            each(answer, queries.len(), &mut found)
        });
        match done {
            Ok(()) => Ok(found),
            Err(error) => Err((found.len(), error)),
        }
    }

    fn query_first<T: FromRow, Q: AsRef<str>>(&mut self, query: Q) -> mysql::Result<Option<T>> {
        Ok(Ask::query(self, query)?.into_iter().next())
    }

    fn query_drop<Q: AsRef<str>>(&mut self, query: Q) -> mysql::Result<()> {
        Ask::query::<Row, _>(self, query).map(drop)
    }

    fn exec_first<T: FromRow, S: AsStatement, P: Into<Params>>(
        &mut self,
        statement: S,
        parameters: P,
    ) -> mysql::Result<Option<T>> {
        let rows = guarded(|| all(Queryable::exec_iter(self, statement, parameters)?))?;
        Ok(rows.into_iter().next())
    }

    fn prepare(&mut self, statement: &str) -> mysql::Result<Statement> {
        guarded(|| self.prep(statement))
    }

    fn close(&mut self, statement: Statement) -> mysql::Result<()> {
        guarded(|| Queryable::close(self, statement))
    }
}

/// All rows of an answer.
fn all<T: FromRow, P: Protocol>(answer: QueryResult<'_, '_, '_, P>) -> mysql::Result<Vec<T>> {
    let mut found = Vec::new();
    each(answer, 1, &mut found)?;
    Ok(found.pop().unwrap_or_default())
}

/// Adds all rows of each of so many answers.
fn each<T: FromRow, P: Protocol>(
    answer: QueryResult<'_, '_, '_, P>,
    answers: usize,
    found: &mut Vec<Vec<T>>,
) -> mysql::Result<()> {
    // Dropped, it would read what is left, for which there may be no end.
    let mut answer = ManuallyDrop::new(answer);
    let mut left = MAX_ANSWER;
    for _ in 0..answers {
        // It ends where one answer does.
        let rows = answer.by_ref().map(|row| {
            let row = row?;
            Ok((bytes_of(&row), T::from_row_opt(row).ok()))
        });
        found.push(collect(rows, &mut left)?);
    }
    drop(ManuallyDrop::into_inner(answer));
    Ok(())
}

fn other_shape() -> mysql::Error {
    broken("the server sent another answer than was asked for")
}

/// Rows with their sizes; `None` for one of another shape. Takes no more than the bytes that are
/// `left`.
fn collect<T>(
    rows: impl Iterator<Item = mysql::Result<(usize, Option<T>)>>,
    left: &mut usize,
) -> mysql::Result<Vec<T>> {
    let mut found = Vec::new();
    for row in rows {
        let (bytes, row) = row?;
        *left = left
            .checked_sub(bytes)
            .ok_or_else(|| broken("the server sent more than any catalog holds"))?;
        found.push(row.ok_or_else(other_shape)?);
    }
    Ok(found)
}

fn bytes_of(row: &Row) -> usize {
    let values = (0..row.len()).map(|at| match row.as_ref(at) {
        Some(Value::Bytes(bytes)) => VALUE + bytes.len(),
        _ => VALUE,
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_an_end_is_not_collected() {
        let endless = std::iter::repeat_with(|| Ok((100, Some("a name"))));
        let error = collect(endless, &mut 10_000).unwrap_err();
        assert!(error.to_string().contains("more than any catalog"));
        let (few, mut left) = ([Ok((100, Some("a"))), Ok((100, Some("b")))], 250);
        assert_eq!(collect(few.into_iter(), &mut left).unwrap(), ["a", "b"]);
        // Of several answers, all together.
        let more = [Ok((100, Some("c")))];
        assert!(collect(more.into_iter(), &mut left).is_err());
        let odd = [Ok((100, Some("a"))), Ok((100, None))];
        assert!(collect(odd.into_iter(), &mut 200).is_err());
    }

    #[test]
    fn a_panic_of_the_driver_is_an_error_and_none_of_ours() {
        let empty: Vec<u8> = Vec::new();
        let answer = guarded(|| {
            assert!(is_calling());
            Ok(empty[0])
        });
        assert!(answer.is_err() && !is_calling());
    }
}
