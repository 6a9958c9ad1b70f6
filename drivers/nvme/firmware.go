package nvme

import (
	"context"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// DownloadFirmware sends a firmware image, which CommitFirmware puts into a slot. It takes as many commands as are needed.
func (c *Controller) DownloadFirmware(ctx context.Context, image []byte) error {
	if len(image) == 0 || len(image)%4 != 0 {
		return fmt.Errorf("%w: firmware image of %d bytes, must be a multiple of 4", ErrInvalid, len(image))
	}
	for off := 0; off < len(image); {
		n := min(len(image)-off, pageSize)
		cmd := spec.SubmissionEntry{Opcode: spec.AdminFirmwareDownload, CDW10: uint32(n/4 - 1), CDW11: uint32(off / 4)}
		if _, err := c.Admin(ctx, &cmd, image[off:off+n]); err != nil {
			return fmt.Errorf("nvme: download firmware: %w", err)
		}
		off += n
	}
	return nil
}

// CommitFirmware is Firmware Commit: action is one of spec.Commit*, slot 0 lets the controller choose.
func (c *Controller) CommitFirmware(ctx context.Context, slot, action uint8) error {
	cmd := spec.SubmissionEntry{Opcode: spec.AdminFirmwareCommit, CDW10: uint32(slot&7) | uint32(action&7)<<3}
	if _, err := c.Admin(ctx, &cmd, nil); err != nil {
		return fmt.Errorf("nvme: commit firmware: %w", err)
	}
	return nil
}

// Firmware reads what is in the firmware slots.
func (c *Controller) Firmware(ctx context.Context) (l spec.FirmwareLog, err error) {
	b := make([]byte, spec.FirmwareSize)
	if err := c.LogPage(ctx, spec.LogFirmware, 0, 0, 0, b); err != nil {
		return l, err
	}
	l.Get(b)
	return l, nil
}
