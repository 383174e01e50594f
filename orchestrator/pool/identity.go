package pool

import (
	"fmt"
	"io"

	"github.com/google/uuid"
)

// identities draws n identities. MACs are in QEMU's range and differ from those in use; used grows by the new ones.
func identities(entropy io.Reader, n int, used map[string]bool) ([]Identity, error) {
	drawn := make([]Identity, 0, n)
	for len(drawn) < n {
		uid, err := uuid.NewRandomFromReader(entropy)
		if err != nil {
			return nil, fmt.Errorf("draw a desktop's uid: %w", err)
		}
		vm, err := uuid.NewRandomFromReader(entropy)
		if err != nil {
			return nil, fmt.Errorf("draw a VM's uuid: %w", err)
		}
		var tail [3]byte
		if _, err := io.ReadFull(entropy, tail[:]); err != nil {
			return nil, fmt.Errorf("draw a MAC address: %w", err)
		}
		mac := fmt.Sprintf("52:54:00:%02x:%02x:%02x", tail[0], tail[1], tail[2])
		if used[mac] {
			continue
		}
		used[mac] = true
		drawn = append(drawn, Identity{UID: uid.String(), VMUUID: vm.String(), MAC: mac})
	}
	return drawn, nil
}
