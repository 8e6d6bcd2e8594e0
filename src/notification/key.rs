//! What an object's key says: which log it holds, and how S3 notifications encode it.

use percent_encoding::percent_decode_str;

use super::{Ignored, LogKind};

/// Which log an object holds, by the tail of its (decoded) key: whatever stands before, `AWSLogs/` is not assumed.
///
/// The file's name decides, `<account>_CloudTrail_<region>_<YYYYMMDDTHHmmZ>_<unique>` with any extension
/// ([log file name format](https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-log-filename-format.html));
/// then the folder, `CloudTrail/<region>/<YYYY>/<MM>/<DD>/`, whatever the file is called.
///
/// # Errors
///
/// Why the object is not read.
pub fn classify(key: &str) -> Result<LogKind, Ignored> {
    let (folder, file) = key.rsplit_once('/').unwrap_or(("", key));
    if file.is_empty() && !key.is_empty() {
        return Err(Ignored::Folder);
    }
    if is_log_file(file, "_CloudTrail_") {
        return Ok(LogKind::CloudTrail);
    }
    if is_log_file(file, "_CloudTrail-Insight_") {
        return Ok(LogKind::Insight);
    }
    if file.contains("_CloudTrail-Digest_") || folder.split('/').any(|name| name == "CloudTrail-Digest") {
        return Err(Ignored::Digest);
    }
    match dated_log_folder(folder) {
        Some("CloudTrail") => Ok(LogKind::CloudTrail),
        Some("CloudTrail-Insight") => Ok(LogKind::Insight),
        _ => Err(Ignored::OtherObject),
    }
}

/// `<account><marker><region>_<YYYYMMDDTHHmmZ>`, then anything.
fn is_log_file(file: &str, marker: &str) -> bool {
    let Some((account, rest)) = file.split_once(marker) else { return false };
    let Some((region, rest)) = rest.split_once('_') else { return false };
    let Some((date, rest)) = rest.split_once('T') else { return false };
    let Some((minute, rest)) = rest.split_once('Z') else { return false };
    !account.is_empty()
        && !account.contains('_')
        && !region.is_empty()
        && is_digits(date, 8)
        && is_digits(minute, 4)
        && (rest.is_empty() || rest.starts_with(['_', '.']))
}

/// The name of the folder above `<region>/<YYYY>/<MM>/<DD>`.
fn dated_log_folder(folder: &str) -> Option<&str> {
    let mut up = folder.rsplit('/');
    let dated = is_digits(up.next()?, 2) && is_digits(up.next()?, 2) && is_digits(up.next()?, 4);
    let region = up.next()?;
    up.next().filter(|_| dated && !region.is_empty())
}

fn is_digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Undoes the form encoding of S3 notifications: `+` is a space, then `%xx`. What is no escape stays as it is, and
/// bytes that are no UTF-8 stay escaped, so that a log line shows what was sent.
pub(super) fn decode(key: &str) -> String {
    let spaced = key.replace('+', " ");
    let bytes: Vec<u8> = percent_decode_str(&spaced).collect();
    let mut decoded = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        decoded.push_str(chunk.valid());
        decoded.extend(chunk.invalid().iter().map(|byte| percent_encoding::percent_encode_byte(*byte)));
    }
    decoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: &str = "AWSLogs/111122223333/CloudTrail/eu-west-1/2024/05/01";
    const FILE: &str = "111122223333_CloudTrail_eu-west-1_20240501T1205Z_Qz4Lr8sVw1TnYb6K";

    #[test]
    fn the_tail_of_a_key_names_the_log() {
        for key in [
            format!("{DAY}/{FILE}.json.gz"),
            format!("{DAY}/{FILE}.json"),
            format!("{DAY}/{FILE}"),
            format!("{DAY}/{FILE}.json.zst"),
            format!("some prefix/with/parts/AWSLogs/o-exampleorg1/111122223333/{FILE}.json.gz"),
            format!("CloudTrail-Digest/{FILE}.json.gz"),
            format!("{FILE}.json.gz"),
            "11112222xxxx_CloudTrail_us-gov-west-1_20240501T1205Z_a_b.json.gz".to_owned(),
            "111122223333_CloudTrail_eu-west-1_20240501T1205Z.json.gz".to_owned(),
            format!("{DAY}/renamed-by-a-copy-job"),
            "copies/CloudTrail/eu-west-1/2024/05/01/1.json".to_owned(),
        ] {
            assert_eq!(classify(&key), Ok(LogKind::CloudTrail), "{key}");
        }
        for key in [
            "x/111122223333_CloudTrail-Insight_eu-west-1_20240501T1205Z_Qz4Lr8sVw1TnYb6K.json.gz",
            "AWSLogs/111122223333/CloudTrail-Insight/eu-west-1/2024/05/01/any.gz",
        ] {
            assert_eq!(classify(key), Ok(LogKind::Insight), "{key}");
        }
    }

    #[test]
    fn what_is_no_log_says_why() {
        let digest = "AWSLogs/111122223333/CloudTrail-Digest/eu-west-1/2024/05/01/";
        for (key, why) in [
            (format!("{digest}111122223333_CloudTrail-Digest_eu-west-1_t_eu-west-1_20240501T120000Z.json.gz"), Ignored::Digest),
            (format!("{digest}anything"), Ignored::Digest),
            ("111122223333_CloudTrail-Digest_eu-west-1_t_eu-west-1_20240501T120000Z_backfill.json.gz".to_owned(), Ignored::Digest),
            ("AWSLogs/111122223333/CloudTrail/".to_owned(), Ignored::Folder),
            (digest.to_owned(), Ignored::Folder),
            ("/".to_owned(), Ignored::Folder),
            (String::new(), Ignored::OtherObject),
            ("AWSLogs/111122223333/CloudTrail-Aggregated/eu-west-1/2024/05/01/111122223333_CloudTrail-Aggregated_eu-west-1_20240501T1205Z_Qz4L.json.gz".to_owned(), Ignored::OtherObject),
            ("AWSLogs/111122223333/Config/eu-west-1/2024/5/1/ConfigHistory/111122223333_Config_eu-west-1_ConfigHistory_x.json.gz".to_owned(), Ignored::OtherObject),
            ("AWSLogs/111122223333/elasticloadbalancing/eu-west-1/2024/05/01/111122223333_elasticloadbalancing_eu-west-1_app.log.gz".to_owned(), Ignored::OtherObject),
            ("AWSLogs/111122223333/vpcflowlogs/eu-west-1/2024/05/01/111122223333_vpcflowlogs_eu-west-1_fl-1_20240501T1205Z_x.log.gz".to_owned(), Ignored::OtherObject),
            ("AWSLogs/111122223333/CloudTrail/2024/05/01/x".to_owned(), Ignored::OtherObject),
            ("_CloudTrail_eu-west-1_20240501T1205Z_x.json.gz".to_owned(), Ignored::OtherObject),
            ("111122223333_CloudTrail_eu-west-1_20240501T12Z_x.json.gz".to_owned(), Ignored::OtherObject),
            ("111122223333_CloudTrail_eu-west-1_20240501T1205Zx.json.gz".to_owned(), Ignored::OtherObject),
            ("photos/summer.jpg".to_owned(), Ignored::OtherObject),
        ] {
            assert_eq!(classify(&key), Err(why), "{key}");
        }
    }

    #[test]
    fn an_escape_that_is_none_stays_visible() {
        assert_eq!(decode("a+b%20c%2Bd%2Fe%C3%A9"), "a b c+d/e\u{e9}");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%4"), "%zz%4");
        assert_eq!(decode("%ff%C3-%e2%82"), "%FF%C3-%E2%82");
        assert_eq!(decode("%252F"), "%2F");
    }

    proptest! {
        #[test]
        fn decoding_undoes_form_encoding(key in "\\PC*") {
            let encoded: String = percent_encoding::utf8_percent_encode(&key, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
                .replace("%20", "+");
            prop_assert_eq!(decode(&encoded), key);
        }

        #[test]
        fn no_key_panics(key in any::<String>()) {
            let _ = classify(&decode(&key));
        }
    }
}
