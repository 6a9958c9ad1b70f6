package nvme

import "vfiouser/devices/nvme/spec"

// dataWalker turns the data pointer of a command into runs of contiguous addresses.
// Its memory is used again, and holds copies: what the guest writes into a list after
// it was read has no effect.
type dataWalker struct {
	runs []run
	list [pageSize]byte
}

// run is a range of guest addresses.
type run struct{ iova, n uint64 }

// listReader reads a piece of a PRP list or an SGL segment, at most a page.
type listReader interface {
	readList(iova uint64, p []byte) spec.Status
}

// walk fills runs for n bytes, n > 0.
func (w *dataWalker) walk(e *spec.SubmissionEntry, n uint64, from listReader) spec.Status {
	w.runs = w.runs[:0]
	if e.PSDT() == spec.PSDTPRP {
		return w.prps(e.PRP1, e.PRP2, n, from)
	}
	return w.sgl(spec.SGLDescriptor{Address: e.PRP1, Word: e.PRP2}, n, from)
}

func (w *dataWalker) add(iova, n uint64) {
	if k := len(w.runs); k > 0 && w.runs[k-1].iova+w.runs[k-1].n == iova {
		w.runs[k-1].n += n
		return
	}
	w.runs = append(w.runs, run{iova, n})
}
