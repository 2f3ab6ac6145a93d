//! Replies in the words of the scripts' headers.

use std::fmt::Write;

use redlatch::bundle;

use super::drivers::{Answer, Field, Outcome};

/// A reply in the words of the script's header.
pub struct Named {
    pub word: String,
    pub fields: Vec<(String, Option<Field>)>,
}

impl Named {
    pub fn field(&self, name: &str) -> Result<Option<&Field>, String> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, field)| field.as_ref()).ok_or_else(|| format!("the reply has no {name}: {self}"))
    }
}

pub fn named(script: &str, answer: Answer) -> Result<Named, String> {
    let header = bundle::embedded().unwrap().get(script).expect("the bundle has the script").header();
    let reply = header.replies.iter().find(|reply| match &answer.outcome {
        Outcome::Number(number) => reply.code == *number,
        Outcome::Word(word) => reply.word == *word,
    });
    let reply = reply.ok_or_else(|| format!("no @reply is {answer:?}"))?;
    // A type may drop the fields of a reply that has only one meaning.
    if answer.fields.len() != reply.fields.len() {
        return Err(format!("{} has the fields {:?}, not {:?}", reply.word, reply.fields, answer.fields));
    }
    Ok(Named { word: reply.word.clone(), fields: reply.fields.iter().cloned().zip(answer.fields).collect() })
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.word)?;
        self.fields.iter().try_for_each(|(name, field)| match field {
            Some(field) => write!(f, " {name}={}", show(field)),
            None => Ok(()),
        })
    }
}

pub fn show(field: &Field) -> String {
    match field {
        Field::Integer(number) => number.to_string(),
        Field::Bytes(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Field::List(fields) => {
            let mut text = "[".to_owned();
            fields.iter().for_each(|field| write!(text, "{} ", show(field)).unwrap());
            text.trim_end().to_owned() + "]"
        }
    }
}
