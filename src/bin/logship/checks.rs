//! The table of a check program, as `prog --list` prints it.

use crate::course;
use std::time::Duration;

/// One check.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) id: String,
    pub(crate) requirement: String,
    pub(crate) lesson: String,
    /// The course's files that it judges, by name.
    pub(crate) files: Vec<String>,
    pub(crate) time: Duration,
    pub(crate) title: String,
    /// What the lesson says.
    pub(crate) line: String,
    /// Which program it is in.
    pub(crate) program: usize,
}

/// Reads the table of one program; a line that is not one is the kit's own mistake.
pub(crate) fn parse(table: &str, program: usize) -> Result<Vec<Check>, String> {
    table.lines().map(|line| one(line, program).map_err(|wrong| format!("a check's line {line:?}: {wrong}"))).collect()
}

fn one(line: &str, program: usize) -> Result<Check, String> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [id, requirement, lesson, files, seconds, title, says] = fields.as_slice() else {
        return Err(format!("{} fields, not 7", fields.len()));
    };
    if !course::REQUIREMENTS.iter().any(|known| known.id == *requirement) {
        return Err(format!("no requirement {requirement}"));
    }
    let files: Vec<String> = files.split(',').map(|name| name.trim().to_owned()).collect();
    if let Some(unknown) = files.iter().find(|name| course::file(name).is_none()) {
        return Err(format!("no file {unknown}"));
    }
    Ok(Check {
        id: (*id).to_owned(),
        requirement: (*requirement).to_owned(),
        lesson: (*lesson).to_owned(),
        files,
        time: Duration::from_secs(seconds.parse().map_err(|_| format!("no number of seconds: {seconds}"))?),
        title: (*title).to_owned(),
        line: (*says).to_owned(),
        program,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_check() {
        let line = "codec\tW10-R1\tw10-l01\twal_record.c,crc32.c\t5\tround trip\tencode, then decode\n";
        let checks = parse(line, 3).unwrap();
        assert_eq!((checks[0].id.as_str(), checks[0].files.len(), checks[0].program), ("codec", 2, 3));
    }

    #[test]
    fn a_line_with_an_unknown_word_is_refused() {
        for line in [
            "codec\tW10-R99\tw10-l01\twal_record.c\t5\ta\tb",
            "codec\tW10-R1\tw10-l01\twal_recrod.c\t5\ta\tb",
            "codec\tW10-R1\tw10-l01\twal_record.c\tfive\ta\tb",
            "codec\tW10-R1",
        ] {
            assert!(parse(line, 0).is_err(), "{line}");
        }
    }
}
