//! From a picture to boxes: ONNX models behind one trait.
