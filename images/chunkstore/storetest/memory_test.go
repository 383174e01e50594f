package storetest_test

import (
	"testing"
	"time"

	"daybreak/images"
	"daybreak/images/chunkstore/storetest"
)

func TestMemory(t *testing.T) {
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, func(*testing.T) storetest.Opened {
		m := storetest.NewMemory(codec)
		return storetest.Opened{Store: m, Another: m, MakeOld: func(_ *testing.T, by time.Duration) { m.Advance(by) }}
	})
}
