package block

import "sync/atomic"

// null accepts everything and moves nothing.
type null struct {
	size   atomic.Int64
	closed atomic.Bool
}

// Null returns a backend of size bytes that ends every request at once and
// moves no data: writes are forgotten, reads leave the buffers as they are.
// It shows what everything in front of the storage costs.
func Null(size int64) (Backend, error) {
	if err := checkSize(size); err != nil {
		return nil, &OpenError{Spec: "null", Err: err}
	}
	n := new(null)
	n.size.Store(size)
	return n, nil
}

func (n *null) Size() int64 { return n.size.Load() }

func (n *null) Info() Info { return Info{Kind: "null", CanDiscard: true} }

func (n *null) Submit(r *Request) (bool, error) {
	if n.closed.Load() {
		return true, ErrClosed
	}
	return true, r.check(n.size.Load(), false)
}

func (n *null) Close() error {
	n.closed.Store(true)
	return nil
}
