package nvme

import "vfiouser/devices/nvme/spec"

// fetch takes blocks with their metadata from the host; stripped ones have none.
func (c *courier) fetch(cmd *command, data, metadata []byte, stripped bool) spec.Status {
	ns, e := cmd.ns, &cmd.entry
	if !ns.format.extended || stripped {
		if st := c.fromHost(e, data); !st.OK() || stripped {
			return st
		}
		return c.accessMetadata(e, metadata, c.readHost)
	}
	b := c.mixture(len(data) + len(metadata))
	if st := c.fromHost(e, b); !st.OK() {
		return st
	}
	for p := &ns.protection; len(data) > 0; data, metadata = data[p.blockSize:], metadata[p.metadata:] {
		b = b[copy(data[:p.blockSize], b):]
		b = b[copy(metadata[:p.metadata], b):]
	}
	return spec.Success
}

// deliver gives blocks with their metadata to the host.
func (c *courier) deliver(cmd *command, data, metadata []byte, stripped bool) spec.Status {
	ns, e := cmd.ns, &cmd.entry
	if !ns.format.extended || stripped {
		if st := c.toHost(e, data); !st.OK() || stripped {
			return st
		}
		return c.accessMetadata(e, metadata, c.h.writeDMA)
	}
	b := c.mixture(len(data) + len(metadata))[:0]
	for p := &ns.protection; len(data) > 0; data, metadata = data[p.blockSize:], metadata[p.metadata:] {
		b = append(b, data[:p.blockSize]...)
		b = append(b, metadata[:p.metadata]...)
	}
	return c.toHost(e, b)
}

// mixture is memory for blocks as the host has them if they are extended.
func (c *courier) mixture(n int) []byte {
	if cap(c.mixed) < n {
		c.mixed = make([]byte, n)
	}
	return c.mixed[:n]
}

// accessMetadata moves p from or to where the metadata pointer says: one buffer, or an SGL
// that begins with the descriptor there (Base 1.4, 4.2).
func (c *courier) accessMetadata(e *spec.SubmissionEntry, p []byte, move func(uint64, []byte) error) spec.Status {
	if e.PSDT() != spec.PSDTSGLSegment {
		if e.MPTR&3 != 0 {
			return spec.InvalidField | spec.StatusDNR
		}
		return moved(move(e.MPTR, p))
	}
	if e.MPTR&7 != 0 {
		return spec.InvalidField | spec.StatusDNR
	}
	var d [spec.SGLDescriptorSize]byte
	if st := c.readList(e.MPTR, d[:]); !st.OK() {
		return st
	}
	c.data.runs = c.data.runs[:0]
	c.data.toHost = e.Opcode&spec.OpcodeToHost != 0
	st := c.data.sgl(spec.GetSGLDescriptor(d[:]), uint64(len(p)), c)
	if st.Code() == spec.DataSGLLengthInvalid {
		st = spec.MetadataSGLLengthInvalid | spec.StatusDNR
	}
	if !st.OK() {
		return st
	}
	for _, run := range c.data.runs {
		if !run.bucket {
			if st := moved(move(run.iova, p[:run.n])); !st.OK() {
				return st
			}
		}
		p = p[run.n:]
	}
	return spec.Success
}

// moved is the status of an access to the host's memory.
func moved(err error) spec.Status {
	if err != nil {
		return spec.DataTransferError | spec.StatusDNR
	}
	return spec.Success
}
