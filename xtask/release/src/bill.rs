//! The bill of materials, CycloneDX as JSON.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::crates::Crates;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bill {
    bom_format: String,
    spec_version: String,
    metadata: Metadata,
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Metadata {
    component: Component,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    version: String,
    purl: Option<String>,
}

/// Reads the bill of a binary, with the binary's own package.
pub(crate) fn read(path: &Path, binary: &str, private: &[String]) -> Result<Crates> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, binary, private)
}

fn parse(text: &str, binary: &str, private: &[String]) -> Result<Crates> {
    let shown = private.iter().find(|path| text.contains(path.as_str()));
    ensure!(shown.is_none(), "it shows a path of the machine that built it");
    let bill: Bill = serde_json::from_str(text).context("it is no bill of materials")?;
    ensure!(bill.bom_format == "CycloneDX", "its form is {}", bill.bom_format);
    ensure!(bill.spec_version == "1.5", "its version is {}", bill.spec_version);
    let own = bill.metadata.component;
    ensure!(own.name == binary, "it is that of {}", own.name);
    // The binary is named like itself, and only its package URL has the name of its package.
    let crates = bill.components.iter().chain([&own]).map(|component| {
        let purl = component.purl.as_deref().and_then(|purl| purl.strip_prefix("pkg:cargo/")?.split_once('@'));
        let (name, _) = purl.with_context(|| format!("{} has no package URL to be known by", component.name))?;
        Ok((name.to_owned(), component.version.clone()))
    });
    crates.collect::<Result<Vec<_>>>().map(|crates| crates.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bill() -> Value {
        json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "metadata": { "component": {
                "name": "tokencached", "version": "0.1.0", "purl": "pkg:cargo/tokencache-server@0.1.0?x",
            } },
            "components": [{ "name": "a", "version": "1.0.0", "purl": "pkg:cargo/a@1.0.0" }],
        })
    }

    fn error(change: impl Fn(&mut Value)) -> Option<String> {
        let mut bill = bill();
        change(&mut bill);
        parse(&bill.to_string(), "tokencached", &["/somewhere".into()]).err().map(|error| error.to_string())
    }

    #[test]
    fn a_bill_is_of_its_binary_in_the_right_form_and_shows_no_path() {
        assert_eq!(error(|_| ()), None);
        let own = [("a", "1.0.0"), ("tokencache-server", "0.1.0")].map(|(name, version)| (name.into(), version.into()));
        assert_eq!(parse(&bill().to_string(), "tokencached", &[]).unwrap(), own.into_iter().collect());
        assert_eq!(error(|bill| bill["bomFormat"] = "SPDX".into()).as_deref(), Some("its form is SPDX"));
        assert_eq!(error(|bill| bill["specVersion"] = "1.3".into()).as_deref(), Some("its version is 1.3"));
        let other = error(|bill| bill["metadata"]["component"]["name"] = "other".into());
        assert_eq!(other.as_deref(), Some("it is that of other"));
        let shown = error(|bill| bill["components"][0]["bom-ref"] = "path+file:///somewhere/a".into());
        assert_eq!(shown.as_deref(), Some("it shows a path of the machine that built it"));
        assert!(
            error(|bill| bill["components"][0]["purl"] = Value::Null).is_some_and(|why| why.contains("package URL"))
        );
        assert_eq!(error(|bill| *bill = Value::Null).as_deref(), Some("it is no bill of materials"));
    }
}
