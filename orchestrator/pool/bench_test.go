package pool

import (
	"fmt"
	"testing"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// BenchmarkWarmClaim measures what a user waits for a desktop that is ready, in a pool of 200, from the call to the durable
// answer. What gives the desktop back is not measured.
func BenchmarkWarmClaim(b *testing.B) {
	for name, open := range map[string]func(testing.TB) store.Backend{
		"memory": func(testing.TB) store.Backend { return store.NewMemory() },
		"etcd":   embedded,
	} {
		b.Run(name, func(b *testing.B) {
			s := openShopOn(b, open(b), settled(b, 200), plain)
			n := 0
			for b.Loop() {
				n++
				user := fmt.Sprintf("user%d", n)
				d, err := s.claimer.Claim(b.Context(), "sales", user, user, time.Now())
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if _, err := s.claimer.Release(b.Context(), "sales", user, ""); err != nil {
					b.Fatal(err)
				}
				s.edit(b, d.GetMeta().GetName(), func(d *v1.Desktop) { d.Incarnation.UsedBy = "" })
				b.StartTimer()
			}
		})
	}
}
