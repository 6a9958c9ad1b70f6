package nvme

import "vfiouser/devices/nvme/spec"

// dataWalker turns the data pointer of a command into runs of contiguous addresses.
// Its memory is used again, and holds copies: what the guest writes into a list after
// it was read has no effect.
type dataWalker struct {
	runs []run
	// toHost: the command's data goes to the host, so that bit buckets take some of it.
	toHost  bool
	buckets bool // runs has bit buckets
	list    [pageSize]byte
}

// run is a range of guest addresses.
type run struct {
	iova, n uint64
	bucket  bool // the data goes nowhere
}

// listReader reads a piece of a PRP list or an SGL segment, at most a page.
type listReader interface {
	readList(iova uint64, p []byte) spec.Status
}

// walk fills runs for n bytes, n > 0.
func (w *dataWalker) walk(e *spec.SubmissionEntry, n uint64, from listReader) spec.Status {
	w.runs, w.buckets = w.runs[:0], false
	w.toHost = e.Opcode&spec.OpcodeToHost != 0
	if e.PSDT() == spec.PSDTPRP {
		return w.prps(e.PRP1, e.PRP2, n, from)
	}
	return w.sgl(spec.SGLDescriptor{Address: e.PRP1, Word: e.PRP2}, n, from)
}

func (w *dataWalker) add(iova, n uint64) {
	if k := len(w.runs); k > 0 && w.runs[k-1].iova+w.runs[k-1].n == iova && !w.runs[k-1].bucket {
		w.runs[k-1].n += n
		return
	}
	w.runs = append(w.runs, run{iova: iova, n: n})
}

// discard adds n bytes that go nowhere.
func (w *dataWalker) discard(n uint64) {
	w.runs = append(w.runs, run{n: n, bucket: true})
	w.buckets = true
}
