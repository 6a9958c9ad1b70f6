package nvme

import (
	"context"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// CreateNamespace makes a namespace of size logical blocks in an LBA format of Identify
// Namespace, and returns its number (Base 2.0, 5.23). It is attached to no controller yet. What
// else the controller looks at, such as NMIC and DPS, is taken from like, which may be nil.
func (c *Controller) CreateNamespace(ctx context.Context, size uint64, format uint8, like *spec.IdentifyNamespace) (nsid uint32, err error) {
	var id spec.IdentifyNamespace
	if like != nil {
		id = *like
	}
	id.Size, id.Capacity = size, size
	id.FLBAS = id.FLBAS&spec.FLBASExtended | format&0xf | format>>4&3<<5
	data := make([]byte, spec.IdentifySize)
	id.Put(data)
	cmd := spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceCreate}
	nsid, err = c.Admin(ctx, &cmd, data)
	if err != nil {
		return 0, fmt.Errorf("nvme: create a namespace of %d blocks: %w", size, err)
	}
	return nsid, nil
}

// DeleteNamespace removes a namespace from the subsystem with all that is stored in it;
// spec.BroadcastNSID removes all of them.
func (c *Controller) DeleteNamespace(ctx context.Context, nsid uint32) error {
	cmd := spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceDelete, NSID: nsid}
	if _, err := c.Admin(ctx, &cmd, nil); err != nil {
		return fmt.Errorf("nvme: delete namespace %#x: %w", nsid, err)
	}
	return nil
}

// AttachNamespace lets controllers have a namespace, given by their identifiers in ascending
// order (Base 2.0, 5.22). Rescan opens it.
func (c *Controller) AttachNamespace(ctx context.Context, nsid uint32, controllers ...uint16) error {
	return c.attachment(ctx, spec.NamespaceAttach, nsid, controllers)
}

// DetachNamespace takes a namespace from controllers. Their commands on it have ended then.
func (c *Controller) DetachNamespace(ctx context.Context, nsid uint32, controllers ...uint16) error {
	return c.attachment(ctx, spec.NamespaceDetach, nsid, controllers)
}

func (c *Controller) attachment(ctx context.Context, sel, nsid uint32, controllers []uint16) error {
	data := make([]byte, spec.IdentifySize)
	spec.PutControllerList(data, controllers)
	cmd := spec.SubmissionEntry{Opcode: spec.AdminNamespaceAttachment, NSID: nsid, CDW10: sel}
	if _, err := c.Admin(ctx, &cmd, data); err != nil {
		return fmt.Errorf("nvme: attachment %d of namespace %#x and controllers %d: %w", sel, nsid, controllers, err)
	}
	return nil
}

// Format erases a namespace and gives it another LBA format (Base 2.0, 5.14). Rescan
// opens it anew.
func (c *Controller) Format(ctx context.Context, nsid uint32, f spec.FormatNVM) error {
	cmd := spec.SubmissionEntry{Opcode: spec.AdminFormatNVM, NSID: nsid, CDW10: f.Word()}
	if _, err := c.Admin(ctx, &cmd, nil); err != nil {
		return fmt.Errorf("nvme: format namespace %#x: %w", nsid, err)
	}
	return nil
}
