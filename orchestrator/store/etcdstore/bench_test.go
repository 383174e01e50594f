package etcdstore

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"daybreak/orchestrator/store"
)

// BenchmarkCommit measures durable transactions: alone, from 64 writers at once, and 128 objects in each.
func BenchmarkCommit(b *testing.B) {
	s, err := Embedded(context.Background(), EmbedConfig{Dir: b.TempDir(), Log: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	backend := New(s.Client, "/daybreak", zerolog.Nop())
	var n atomic.Int64
	commit := func(b *testing.B, objects int) {
		ops := make([]store.Op, objects)
		for i := range ops {
			ops[i] = store.Create(newZone(fmt.Sprintf("z%d", n.Add(1))))
		}
		if _, err := backend.Commit(ctx, store.Guard{}, ops); err != nil {
			b.Error(err)
		}
	}
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			commit(b, 1)
		}
	})
	b.Run("batch", func(b *testing.B) {
		for b.Loop() {
			commit(b, 128)
		}
	})
	b.Run("writers", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				commit(b, 1)
			}
		})
	})
}
