package dma

// Copy moves bytes between shared and private memory and gives their number. What
// lands in private memory was read once; validate that copy, never the source.
func Copy(dst, src []byte) int { return copy(dst, src) }

// CopyIn64 copies a 64-byte queue entry into private memory. src must have 64 bytes.
// The compiler makes one move of it and, by design, never goes back to the source
// of a move from memory that is not its own stack.
func CopyIn64(dst *[64]byte, src []byte) { *dst = [64]byte(src) }
