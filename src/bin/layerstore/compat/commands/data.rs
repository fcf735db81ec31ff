//! Data items: `list-*-data`, `get-*-data`, `get-*-data-size`, `get-*-data-digest`, `set-*-data`.

use layerstore::{Item, Kind, ThingId};

use super::super::call::Call;
use super::super::failure::{Failure, known};
use super::super::lookup;
use super::super::records::keys;
use super::super::table::FILE;

macro_rules! commands {
    ($($name:ident: $run:ident, $kind:ident;)+) => {
        $(pub fn $name(call: &Call<'_>) -> Result<(), Failure> {
            $run(call, Kind::$kind)
        })+
    };
}

commands! {
    list_of_layer: list, Layer;
    list_of_image: list, Image;
    list_of_container: list, Container;
    get_of_layer: get, Layer;
    get_of_image: get, Image;
    get_of_container: get, Container;
    size_of_image: size, Image;
    size_of_container: size, Container;
    digest_of_image: digest, Image;
    digest_of_container: digest, Container;
    set_of_layer: set, Layer;
    set_of_image: set, Image;
    set_of_container: set, Container;
}

fn list(call: &Call<'_>, kind: Kind) -> Result<(), Failure> {
    let keys = keys(&call.store.items(owner(call, kind)?)?);
    match (call.is_json(), keys.is_empty()) {
        // The reference's word for no keys at all.
        (true, true) => call.console.json(&()),
        (true, false) => call.console.json(&keys),
        (false, _) => keys.iter().try_for_each(|key| call.console.line(key)),
    }
}

fn get(call: &Call<'_>, kind: Kind) -> Result<(), Failure> {
    let owner = owner(call, kind)?;
    if item(call, &owner)?.is_none() {
        return Err(Failure::Text(missing(call, &owner)));
    }
    let bytes = call.store.item(owner, call.arg(1))?;
    call.write_out(|out| out.write_all(&bytes).map_err(Failure::Output))
}

fn size(call: &Call<'_>, kind: Kind) -> Result<(), Failure> {
    let item = item(call, &owner(call, kind)?)?.ok_or_else(|| Failure::new(known::NO_SIZE))?;
    call.console.line(item.size)
}

fn digest(call: &Call<'_>, kind: Kind) -> Result<(), Failure> {
    let item = item(call, &owner(call, kind)?)?.ok_or_else(|| Failure::new(known::NO_DIGEST))?;
    call.console.line(item.digest)
}

fn set(call: &Call<'_>, kind: Kind) -> Result<(), Failure> {
    let owner = own_owner(call, kind)?;
    let key = call.arg(1);
    if key.is_empty() {
        let text = format!("can't set empty name for {kind} big data item: {}", known::BAD_ITEM_NAME);
        return Err(Failure::Text(text));
    }
    let bytes = call.read_in(&FILE)?;
    Ok(call.store.write(|txn| txn.put_item(&owner, key, &bytes))?)
}

fn owner(call: &Call<'_>, kind: Kind) -> Result<ThingId, Failure> {
    let word = call.arg(0);
    Ok(match kind {
        Kind::Layer => (&lookup::known_layer(&call.store, word)?).into(),
        Kind::Image => (&lookup::known_image(&call.store, word)?).into(),
        Kind::Container => (&lookup::known_container(&call.store, word)?).into(),
    })
}

/// The same, if it is not in a store that is only read.
fn own_owner(call: &Call<'_>, kind: Kind) -> Result<ThingId, Failure> {
    let (store, word) = (&call.store, call.arg(0));
    let text = match kind {
        Kind::Layer if lookup::known_layer(store, word)?.image_store.is_some() => {
            format!("locating layer with ID \"{word}\" to write bigdata: {}", known::LAYER)
        }
        Kind::Image if lookup::known_image(store, word)?.image_store.is_some() => {
            format!("locating image with ID \"{word}\": {}", known::IMAGE)
        }
        _ => return owner(call, kind),
    };
    Err(Failure::Text(text))
}

fn item(call: &Call<'_>, owner: &ThingId) -> Result<Option<Item>, Failure> {
    Ok(call.store.items(owner)?.into_iter().find(|item| item.key == call.arg(1)))
}

fn missing(call: &Call<'_>, owner: &ThingId) -> String {
    let (key, id) = (call.arg(1), owner.as_str());
    let advice = match owner {
        ThingId::Image(_) => " (consider removing the image to resolve the issue)",
        ThingId::Layer(_) => "",
        ThingId::Container(_) => {
            // The reference has it in a file, and says so; here is none.
            let path = call.place.root.join("overlay-containers").join(id).join(key);
            return format!("open {}: no such file or directory", path.display());
        }
    };
    format!("locating item named \"{key}\" for {} with ID \"{id}\"{advice}: {}", owner.kind(), known::NO_FILE)
}
