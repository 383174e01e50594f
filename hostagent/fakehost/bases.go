package fakehost

import (
	"context"
	"slices"
	"time"

	"daybreak/hostagent"
)

// care is what is known of a base beside its content.
type care struct {
	used, compared time.Time
	// rotten: the next comparison finds it damaged.
	rotten bool
}

// careOf returns it, made new when it is not there; the caller holds mu.
func (h *Host) careOf(digest string) *care {
	c, ok := h.cares[digest]
	if !ok {
		c = &care{used: time.Now(), compared: time.Now()}
		h.cares[digest] = c
	}
	return c
}

// dropBase removes a base; the caller holds mu.
func (h *Host) dropBase(digest string) {
	delete(h.bases, digest)
	delete(h.cares, digest)
}

// TrashBases implements hostagent.Disks.
func (h *Host) TrashBases(ctx context.Context, keep map[string]bool, unusedSince time.Time) (gone []string, err error) {
	err = h.call(ctx, OpTrashBases, hostagent.Life{}, func() error {
		for _, o := range h.overlays {
			h.careOf(o.digest).used = time.Now()
		}
		for digest := range h.bases {
			switch c := h.careOf(digest); {
			case keep[digest]:
				c.used = time.Now()
			case !c.used.After(unusedSince) && !h.overlaid(digest):
				h.dropBase(digest)
				gone = append(gone, digest)
			}
		}
		return nil
	})
	slices.Sort(gone)
	return gone, err
}

func (h *Host) overlaid(digest string) bool {
	for _, o := range h.overlays {
		if o.digest == digest {
			return true
		}
	}
	return false
}

// Scrub implements hostagent.Disks. Damaged is what Rot said.
func (h *Host) Scrub(ctx context.Context, before time.Time, _ int64) (digest string, damaged bool, err error) {
	err = h.call(ctx, OpScrub, hostagent.Life{}, func() error {
		for candidate := range h.bases {
			last := h.careOf(candidate).compared
			if last.Before(before) && (digest == "" || last.Before(h.careOf(digest).compared)) {
				digest = candidate
			}
		}
		if digest == "" {
			return nil
		}
		c := h.careOf(digest)
		c.compared = time.Now()
		if damaged = c.rotten; damaged {
			h.dropBase(digest)
		}
		return nil
	})
	return digest, damaged, err
}

// Rot damages a base, which shows when it is compared.
func (h *Host) Rot(digest string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.careOf(digest).rotten = true
}
