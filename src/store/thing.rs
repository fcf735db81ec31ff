//! Naming one thing of any kind.

use layerstore_schema::table::Owner;

use crate::image::{Container, Image, Kind};
use crate::layer::Layer;
use crate::types::{ContainerId, ImageId, LayerId};

/// The id of a layer, an image or a container.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ThingId {
    /// A layer.
    Layer(LayerId),
    /// An image.
    Image(ImageId),
    /// A container.
    Container(ContainerId),
}

impl ThingId {
    /// The kind of the thing.
    pub fn kind(&self) -> Kind {
        match self {
            ThingId::Layer(_) => Kind::Layer,
            ThingId::Image(_) => Kind::Image,
            ThingId::Container(_) => Kind::Container,
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        match self {
            ThingId::Layer(id) => id.as_str(),
            ThingId::Image(id) => id.as_str(),
            ThingId::Container(id) => id.as_str(),
        }
    }

    pub(super) fn owner(&self) -> Owner {
        self.kind().owner()
    }
}

macro_rules! thing_from {
    ($($variant:ident: $id:ty, $value:ty);+ $(;)?) => {
        $(
            impl From<$id> for ThingId {
                fn from(id: $id) -> Self {
                    ThingId::$variant(id)
                }
            }

            impl From<&$id> for ThingId {
                fn from(id: &$id) -> Self {
                    ThingId::$variant(id.clone())
                }
            }

            impl From<&$value> for ThingId {
                fn from(value: &$value) -> Self {
                    ThingId::$variant(value.id.clone())
                }
            }

            impl From<&$value> for $id {
                fn from(value: &$value) -> Self {
                    value.id.clone()
                }
            }
        )+
    };
}

thing_from! {
    Layer: LayerId, Layer;
    Image: ImageId, Image;
    Container: ContainerId, Container;
}

impl From<&Thing> for ThingId {
    fn from(thing: &Thing) -> Self {
        thing.id()
    }
}

impl From<&ThingId> for ThingId {
    fn from(id: &ThingId) -> Self {
        id.clone()
    }
}

/// A layer, an image or a container with all that the store says about it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Thing {
    /// A layer.
    Layer(Layer),
    /// An image.
    Image(Image),
    /// A container.
    Container(Container),
}

impl Thing {
    /// The id of the thing.
    pub fn id(&self) -> ThingId {
        match self {
            Thing::Layer(layer) => layer.into(),
            Thing::Image(image) => image.into(),
            Thing::Container(container) => container.into(),
        }
    }
}
