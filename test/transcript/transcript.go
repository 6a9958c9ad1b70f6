package transcript

import (
	"bytes"
	"sync"
)

// Buffer is a bytes.Buffer that may be read while it is written. The zero value is empty.
type Buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

// Write appends p.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

// String is all that was written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}
