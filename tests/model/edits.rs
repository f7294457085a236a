//! Interventions as text: what is understood, and what is refused, always in words.

use std::collections::BTreeMap;

use gossamer::Error;
use gossamer::model::{Action, Channels, Edit, EditSites, Interventions, Positions};
use proptest::prelude::*;

use crate::variants::as_published;

fn edit(site: &str, channels: &[Channels], positions: &[Positions], action: Action) -> Edit {
    let sites = match site.strip_prefix("*.") {
        Some(kind) => EditSites::EveryLayer(kind.parse().unwrap()),
        None => EditSites::One(site.parse().unwrap()),
    };
    Edit { sites, channels: channels.to_vec(), positions: positions.to_vec(), action }
}

#[test]
fn documented_forms_are_understood() {
    use Action::{Add, Mean, Patch, Scale, Set};
    use Channels::Head;
    use Positions::{At, Range as Times};
    let range = Channels::Range;
    let forms = [
        ("3.mlp.post_act[17]@-1=0", edit("3.mlp.post_act", &[range(17, 18)], &[At(-1)], Set(0.0))),
        ("0.attn.q[h2]*=0.5", edit("0.attn.q", &[Head(2, None)], &[], Scale(0.5))),
        ("0.attn.q[h2.5]+=1", edit("0.attn.q", &[Head(2, Some(5))], &[], Add(1.0))),
        ("*.mlp.resid_delta=mean", edit("*.mlp.resid_delta", &[], &[], Mean)),
        ("final_resid@3:=patch", edit("final_resid", &[], &[Times(Some(3), None)], Patch)),
        ("final_resid=-1.5e-3", edit("final_resid", &[], &[], Set(-1.5e-3))),
        ("0.resid_mid-=2", edit("0.resid_mid", &[], &[], Add(-2.0))),
        ("0.resid_mid@1:-=2", edit("0.resid_mid", &[], &[Times(Some(1), None)], Add(-2.0))),
        ("0.resid_mid+=-2", edit("0.resid_mid", &[], &[], Add(-2.0))),
        ("0.resid_mid@:=patch", edit("0.resid_mid", &[], &[Times(None, None)], Patch)),
        (
            "1.attn.v[0:4,7,h1,h0.3]@0,-2:,:3,-4:-1=patch",
            edit(
                "1.attn.v",
                &[range(0, 4), range(7, 8), Head(1, None), Head(0, Some(3))],
                &[At(0), Times(Some(-2), None), Times(None, Some(3)), Times(Some(-4), Some(-1))],
                Patch,
            ),
        ),
        (
            "  1.attn.v [ 0:4 , 7 ] @ 0 , -2: *= 3 ",
            edit("1.attn.v", &[range(0, 4), range(7, 8)], &[At(0), Times(Some(-2), None)], Scale(3.0)),
        ),
    ];
    for (text, want) in forms {
        assert_eq!(text.parse::<Edit>().unwrap(), want, "{text}");
        assert_eq!(want.to_string().parse::<Edit>().unwrap(), want, "{want}");
    }
    // What people would write is what is written.
    for text in ["3.mlp.post_act[17]@-1=0", "0.attn.q[h2,h1.5,0:4]*=0.5", "final_resid@3:,:2=patch", "*.attn.k+=-2"] {
        assert_eq!(text.parse::<Edit>().unwrap().to_string(), text);
        assert_eq!(serde_json::to_string(&text.parse::<Edit>().unwrap()).unwrap(), format!("{text:?}"));
        assert_eq!(serde_json::from_str::<Edit>(&format!("{text:?}")).unwrap(), text.parse::<Edit>().unwrap());
    }
}

#[test]
fn malformed_texts_are_told_what_is_wrong() {
    let malformed = [
        ("", "no `=`"),
        ("0.attn.q[3]", "no `=`"),
        ("=0", "`` is not a site"),
        ("[3]=0", "`` is not a site"),
        ("@3=0", "`` is not a site"),
        ("0.attn.q=", "`` is not a number"),
        ("0.attn.q=zero", "`zero` is not a number"),
        ("0.attn.q=nan", "is not a number"),
        ("0.attn.q*=inf", "is not a number"),
        ("0.attn.q=1e99", "is not a number"),
        ("0.attn.q+=mean", "`mean` is not a number"),
        ("0.attn.q*=patch", "`patch` is not a number"),
        ("0.attn.q==0", "`=0` is not a number"),
        ("0.attn.q[]=0", "channels are"),
        ("0.attn.q[-1]=0", "channels are"),
        ("0.attn.q[1:]=0", "channels are"),
        ("0.attn.q[1,]=0", "channels are"),
        ("0.attn.q[h]=0", "channels are"),
        ("0.attn.q[h1.]=0", "channels are"),
        ("0.attn.q[1.5]=0", "channels are"),
        ("0.attn.q[99999999999999999999]=0", "channels are"),
        ("0.attn.q[3=0", "is not a site"),
        ("0.attn.q 3]=0", "without its `[`"),
        ("0.attn.q[3]x=0", "is not a site"),
        ("0.attn.q[3]@=0", "positions are"),
        ("0.attn.q@1.5=0", "positions are"),
        ("0.attn.q@1@2=0", "positions are"),
        ("0.attn.q@1:2:3=0", "positions are"),
        ("0.attn.q@99999999999999999999=0", "positions are"),
        ("0.attn.q@2[3]=0", "positions are"),
        ("0.attn.qé=0", "is not a site"),
        ("0.attn.q€*=0", "is not a site"),
        ("é=0", "is not a site"),
        ("0.attn=0", "`0.attn` is not a site: each layer has"),
        ("*.attn=0", "is not a site"),
        ("*.final_resid=0", "is not a site"),
        ("01.attn.q=0", "is not a site"),
    ];
    for (text, reason) in malformed {
        let error = text.parse::<Edit>().unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{text}: {error:?}");
        let message = error.to_string();
        assert!(message.contains(reason) && message.contains("the form is"), "{text}: {message}");
    }
}

/// An edit that parses also parses as displayed, and can be prepared or returns an error.
fn parse_and_prepare(text: &str) {
    let config = as_published();
    let means: BTreeMap<_, _> = config.sites().into_iter().map(|site| (site, vec![0.0; site.width(&config)])).collect();
    let parsed = text.parse::<Edit>();
    if let Ok(edit) = &parsed {
        assert_eq!(edit.to_string().parse::<Edit>().unwrap(), *edit, "{text}");
    }
    let prepared = parsed.and_then(|edit| Interventions::new(&config, &[edit], means, BTreeMap::default()));
    if let Err(error) = prepared {
        assert!(matches!(error, Error::Config { .. }), "{text}: {error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn no_text_is_too_strange(text in "[0-9.,:;@=+*h\\[\\] a-qé-]{0,24}") {
        parse_and_prepare(&text);
    }

    #[test]
    fn nor_almost_right(
        text in "([0-2]|\\*)\\.(attn\\.[qkvy]|resid_in|mlp\\.act_in)(\\[h?[0-9]{1,20}[.:,]?[0-9]{0,2}\\])?(@-?[0-9]{0,20}:?-?[0-9]?)?[-+*]?=-?([0-9]{1,3}|mean|patch)"
    ) {
        parse_and_prepare(&text);
    }
}
