//! Colours as a JPEG stores them.

use aits_orders::ObjectClass;

/// A colour in YCbCr, full range (ITU-T T.871, the JPEG file interchange format).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Color {
    /// Luma and the two chroma samples, in plane order.
    pub yuv: [u8; 3],
}

impl From<[u8; 3]> for Color {
    /// From 8-bit red, green, blue by the equations of ITU-T T.871, section 7.
    fn from([r, g, b]: [u8; 3]) -> Self {
        let [r, g, b] = [r, g, b].map(f32::from);
        let y = 0.299 * r + 0.587 * g + 0.114 * b;
        let (cb, cr) = ((b - y) / 1.772, (r - y) / 1.402);
        // `as` saturates, which is the clamp that the equations ask for.
        Self { yuv: [y.round() as u8, (128.0 + cb).round() as u8, (128.0 + cr).round() as u8] }
    }
}

/// The colour in which a class is outlined: red, green, blue. Cars are green beyond doubt, so that a person and a test
/// find them.
pub fn class_color(class: ObjectClass) -> [u8; 3] {
    match class {
        ObjectClass::Car => [0, 255, 40],
        ObjectClass::Truck => [255, 150, 0],
        ObjectClass::Bus => [255, 225, 0],
        ObjectClass::Motorcycle => [255, 70, 200],
        ObjectClass::Bicycle => [0, 210, 255],
        ObjectClass::Person => [255, 75, 75],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primaries_are_where_the_standard_puts_them() {
        assert_eq!(Color::from([0, 0, 0]).yuv, [0, 128, 128]);
        assert_eq!(Color::from([255, 255, 255]).yuv, [255, 128, 128]);
        assert_eq!(Color::from([255, 0, 0]).yuv, [76, 85, 255]);
        assert_eq!(Color::from([0, 255, 0]).yuv, [150, 44, 21]);
        assert_eq!(Color::from([0, 0, 255]).yuv, [29, 255, 107]);
    }

    #[test]
    fn classes_can_be_told_apart() {
        for (i, a) in ObjectClass::ALL.into_iter().enumerate() {
            for b in ObjectClass::ALL.into_iter().skip(i + 1) {
                let (a, b) = (class_color(a), class_color(b));
                let distance: i32 = (0..3).map(|k| (i32::from(a[k]) - i32::from(b[k])).abs()).sum();
                assert!(distance > 70, "{a:?} and {b:?} look alike");
            }
        }
    }
}
