package libvirt

import (
	"context"
	"fmt"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"github.com/digitalocean/go-qemu/qmp/raw"
	"golang.org/x/sys/unix"
	lv "libvirt.org/go/libvirt"

	"daybreak/hostagent"
)

// A guest whose disk's store is full or fails stands still (error_policy="stop"). Nobody but us would let it go on when
// that is mended. Going on is harmless: QEMU tries the request again, and stops again where it fails again; so nothing is
// lost by trying, and nothing by waiting.
const (
	mendEvery = 10 * time.Second
	// A store that failed is tried again more seldom than one that was full.
	mendFailedEvery = time.Minute
	// mendRoom is what the store must have free before guests that it stopped may go on, bytes: a few writes of each.
	mendRoom = 64 << 20
)

// ioStatus is why a guest stands still, in QEMU's words.
type ioStatus string

const (
	ioFull    ioStatus = "nospace"
	ioFailed  ioStatus = "failed"
	ioUnknown ioStatus = "unknown"
)

// stopped is a guest that stands still, and what was done about it.
type stopped struct {
	life   hostagent.Life
	status ioStatus
	// tried is when it was last let go on.
	tried time.Time
}

// decideMend says whether a guest shall go on now.
func decideMend(now time.Time, s stopped, free uint64) bool {
	if s.status == ioFull {
		return free >= mendRoom
	}
	return now.Sub(s.tried) >= mendFailedEvery
}

// mend looks for guests that stand still, says why, and lets them go on when there is a point.
func (h *Host) mend(ctx context.Context) error {
	known := map[string]stopped{}
	tick := time.NewTicker(mendEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		domains, err := h.Domains(ctx)
		if err != nil {
			h.log.Debug().Err(err).Msg("cannot look for guests that stand still")
			continue
		}
		still := map[string]stopped{}
		for _, d := range domains {
			if d.State != hostagent.DomainPausedIO {
				continue
			}
			still[d.UID] = h.mendOne(ctx, d.Life, known[d.UID])
		}
		known = still
	}
}

// mendOne deals with one guest and returns what is known of it now.
func (h *Host) mendOne(ctx context.Context, life hostagent.Life, before stopped) stopped {
	log := h.log.With().Str("desktop", life.Desktop).Int64("generation", life.Generation).Logger()
	now := stopped{life: life, status: before.status, tried: before.tried}
	if before.life != life {
		status, err := ioStatusOf(&monitor{h: h, life: life})
		if err != nil {
			log.Warn().Err(err).Msg("cannot find out why a guest stands still")
		}
		now.status = status
		log.Warn().Str("why", string(status)).Msg("a guest stands still: its disk's store is full or fails")
	}
	room, err := freeSpace(h.cfg.Store)
	if err != nil {
		log.Warn().Err(err).Msg("cannot measure the store")
		return now
	}
	if !decideMend(time.Now(), now, room) {
		return now
	}
	now.tried = time.Now()
	if err := h.resume(ctx, life); err != nil {
		log.Warn().Err(err).Msg("cannot let a guest go on")
		return now
	}
	log.Info().Str("why", string(now.status)).Msg("let a guest go on that stood still")
	return now
}

// ioStatusOf asks QEMU which kind of error stopped a guest. libvirt tells it only in the event, which nobody may have heard.
func ioStatusOf(m qmp.Monitor) (ioStatus, error) {
	blocks, err := raw.NewMonitor(m).QueryBlock()
	if err != nil {
		return ioUnknown, fmt.Errorf("ask for disks' status: %w", err)
	}
	status := ioUnknown
	for _, b := range blocks {
		if b.IOStatus == nil {
			continue
		}
		switch *b.IOStatus {
		case raw.BlockDeviceIOStatusFailed:
			return ioFailed, nil
		case raw.BlockDeviceIOStatusNospace:
			status = ioFull
		}
	}
	return status, nil
}

// resume lets a guest go on that stands still for its disk; not one that was paused for another reason meanwhile.
func (h *Host) resume(ctx context.Context, life hostagent.Life) error {
	return h.change(ctx, life, "resume VM", func(c *lv.Connect) error {
		d, err := find(c, life)
		if err != nil {
			return err
		}
		defer free(d)
		state, reason, err := d.GetState()
		if err != nil {
			return fmt.Errorf("read state: %w", err)
		}
		if stateOf(state, reason) != hostagent.DomainPausedIO {
			return nil
		}
		return d.Resume()
	})
}

func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}
