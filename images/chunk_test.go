package images_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"daybreak/images"
)

func codec(t testing.TB) *images.Codec {
	t.Helper()
	c, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// noise is bytes that do not compress; text is half noise, half repetition.
func noise(seed uint64, n int) []byte {
	data := make([]byte, n)
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	source.Read(data)
	return data
}

func text(seed uint64, n int) []byte {
	return append(noise(seed, n/2), bytes.Repeat([]byte("warm before the doors open. "), n)[:n-n/2]...)
}

func TestSealOpen(t *testing.T) {
	c := codec(t)
	for name, plain := range map[string][]byte{
		"one sector": text(1, 512), "a whole chunk": text(2, images.ChunkBytes), "noise": noise(3, images.ChunkBytes),
		"repetition": bytes.Repeat([]byte{7}, images.ChunkBytes),
	} {
		t.Run(name, func(t *testing.T) {
			chunk := images.Chunk{Digest: images.Sum(plain), Sealed: c.Seal(plain)}
			if len(chunk.Sealed) > images.MaxSealedBytes {
				t.Fatalf("sealed to %d bytes", len(chunk.Sealed))
			}
			for _, buf := range [][]byte{nil, make([]byte, 10), make([]byte, 0, images.ChunkBytes)} {
				got, err := c.Open(buf, chunk)
				if err != nil || !bytes.Equal(got, plain) {
					t.Fatalf("Open into %d bytes: %v", cap(buf), err)
				}
			}
			piece := images.Piece{Length: len(plain), Digest: chunk.Digest}
			if _, err := c.OpenPiece(nil, piece, chunk.Sealed); err != nil {
				t.Error(err)
			}
			piece.Length -= 512
			if _, err := c.OpenPiece(nil, piece, chunk.Sealed); !errors.Is(err, images.ErrCorrupt) {
				t.Errorf("a piece of another length opened: %v", err)
			}
			for _, at := range []int{0, len(chunk.Sealed) / 2, len(chunk.Sealed) - 1} {
				damaged := bytes.Clone(chunk.Sealed)
				damaged[at] ^= 0x10
				if got, err := c.Open(nil, images.Chunk{Digest: chunk.Digest, Sealed: damaged}); err == nil && !bytes.Equal(got, plain) {
					t.Errorf("byte %d changed and other content came out", at)
				} else if err != nil && !errors.Is(err, images.ErrCorrupt) {
					t.Errorf("byte %d changed: %v, want ErrCorrupt", at, err)
				}
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	c := codec(t)
	// Bombs: 64 MiB of zeros, once with the size in the header and once as a stream without it.
	huge := make([]byte, 64<<20)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	known := enc.EncodeAll(huge, nil)
	var stream bytes.Buffer
	enc.Reset(&stream)
	for at := 0; at < len(huge); at += 1 << 20 {
		if _, err := enc.Write(huge[at : at+1<<20]); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	two := bytes.Repeat(c.Seal(huge[:images.ChunkBytes]), 2)
	other := images.Sum([]byte("other"))
	for name, chunk := range map[string]images.Chunk{
		"a bomb":                {Digest: images.Sum(huge), Sealed: known},
		"a bomb of hidden size": {Digest: images.Sum(huge), Sealed: stream.Bytes()},
		"two frames":            {Digest: images.Sum(huge[:2*images.ChunkBytes]), Sealed: two},
		"nothing":               {Digest: images.Sum(nil), Sealed: nil},
		"a frame of nothing":    {Digest: images.Sum(nil), Sealed: c.Seal(nil)},
		"no zstd":               {Digest: images.Sum([]byte("plain")), Sealed: []byte("plain")},
		"other content":         {Digest: other, Sealed: c.Seal(text(1, 4096))},
		"the zero digest":       {Sealed: c.Seal(make([]byte, 4096))},
		"too long":              {Digest: other, Sealed: noise(1, images.MaxSealedBytes+1)},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := c.Open(nil, chunk)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, images.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
		if taken := after.TotalAlloc - before.TotalAlloc; taken > 8*images.ChunkBytes {
			t.Errorf("%s: refused only after %d bytes were allocated", name, taken)
		}
	}
}

func TestCodecIsSharedSafely(t *testing.T) {
	c := codec(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			plain := text(uint64(i), 64<<10)
			for range 20 {
				got, err := c.Open(nil, images.Chunk{Digest: images.Sum(plain), Sealed: c.Seal(plain)})
				if err != nil || !bytes.Equal(got, plain) {
					t.Errorf("goroutine %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestAllZero(t *testing.T) {
	data := make([]byte, images.ChunkBytes)
	if !images.AllZero(data) || !images.AllZero(nil) || !images.AllZero(data[:1]) {
		t.Error("zeros are not seen as zeros")
	}
	for _, at := range []int{0, 1, 511, images.ChunkBytes / 2, images.ChunkBytes - 1} {
		data[at] = 1
		if images.AllZero(data) {
			t.Errorf("a one at %d is not seen", at)
		}
		data[at] = 0
	}
	if images.AllZero(bytes.Repeat([]byte{9}, 100)) {
		t.Error("nines are seen as zeros")
	}
}

func FuzzOpen(f *testing.F) {
	c := codec(f)
	f.Add(c.Seal(text(1, 4096)))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		plain, err := c.Open(nil, images.Chunk{Digest: images.Sum([]byte("x")), Sealed: sealed})
		if err == nil && string(plain) != "x" {
			t.Fatalf("%d bytes of other content came out", len(plain))
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	c := codec(b)
	plain := text(1, images.ChunkBytes)
	b.SetBytes(images.ChunkBytes)
	for b.Loop() {
		c.Seal(plain)
	}
}

func BenchmarkOpen(b *testing.B) {
	c := codec(b)
	plain := text(1, images.ChunkBytes)
	chunk := images.Chunk{Digest: images.Sum(plain), Sealed: c.Seal(plain)}
	buf := make([]byte, 0, images.ChunkBytes)
	b.SetBytes(images.ChunkBytes)
	for b.Loop() {
		if _, err := c.Open(buf, chunk); err != nil {
			b.Fatal(err)
		}
	}
}

func TestDelta(t *testing.T) {
	c, base := codec(t), noise(5, images.ChunkBytes)
	patched := bytes.Clone(base)
	copy(patched[100_000:], "a patch")
	for name, test := range map[string]struct {
		plain []byte
		most  int
	}{
		"a patch":        {patched, 200},
		"the same":       {base, 100},
		"moved":          {append(bytes.Clone(base[1000:]), base[:1000]...), images.MaxSealedBytes},
		"the begin":      {patched[:150_000], 300},
		"something else": {noise(6, images.ChunkBytes), images.MaxSealedBytes},
		"one sector":     {base[512:1024], 700},
	} {
		t.Run(name, func(t *testing.T) {
			sealed := c.SealDelta(test.plain, base)
			if len(sealed) > test.most {
				t.Fatalf("%d bytes, want at most %d", len(sealed), test.most)
			}
			chunk := images.Chunk{Digest: images.Sum(test.plain), Sealed: sealed, Base: images.Sum(base)}
			if got, err := c.OpenDelta(nil, chunk, base); err != nil || !bytes.Equal(got, test.plain) {
				t.Errorf("OpenDelta: %v", err)
			}
			if _, err := c.OpenDelta(nil, chunk, noise(9, images.ChunkBytes)); test.most <= 300 && !errors.Is(err, images.ErrCorrupt) {
				t.Errorf("on another chunk's bytes: %v, want ErrCorrupt", err)
			}
			if _, err := c.Open(nil, chunk); !errors.Is(err, images.ErrCorrupt) {
				t.Errorf("Open of a delta: %v, want ErrCorrupt", err)
			}
			chunk.Base = images.Digest{}
			if _, err := c.Open(nil, chunk); !errors.Is(err, images.ErrCorrupt) {
				t.Errorf("Open of a delta's bytes: %v, want ErrCorrupt", err)
			}
			chunk.Sealed = bytes.Clone(sealed)
			chunk.Sealed[len(sealed)/2] ^= 1
			if got, err := c.OpenDelta(nil, chunk, base); err == nil && !bytes.Equal(got, test.plain) {
				t.Error("other bytes came out of a damaged delta")
			}
		})
	}
	bomb := c.SealDelta(make([]byte, 64<<20), base)
	if _, err := c.OpenDelta(nil, images.Chunk{Sealed: bomb}, base); !errors.Is(err, images.ErrCorrupt) {
		t.Errorf("a bomb: %v", err)
	}
}

func TestDiff(t *testing.T) {
	c, base := codec(t), noise(5, images.ChunkBytes)
	patched := bytes.Clone(base)
	copy(patched[100_000:], "a patch")
	other := noise(6, images.ChunkBytes)
	sealed, chunk := c.Seal(patched), images.Chunk{Digest: images.Sum(patched), Base: images.Sum(base)}
	for name, test := range map[string]struct {
		sealed, base []byte
		fails, opens bool
	}{
		"as it should be":              {sealed: sealed, base: c.Seal(base), opens: true},
		"the base differs everywhere":  {sealed: sealed, base: c.Seal(other), opens: true},
		"the base hides what differs":  {sealed: sealed, base: sealed},
		"the chunk is another":         {sealed: c.Seal(other), base: c.Seal(base)},
		"the base is cut off":          {sealed: sealed, base: c.Seal(base)[:1000], fails: true},
		"the chunk is none":            {sealed: []byte("none"), base: c.Seal(base), fails: true},
		"the chunk is empty":           {sealed: nil, base: c.Seal(base), fails: true},
		"the base makes more than one": {sealed: sealed, base: c.Seal(make([]byte, images.ChunkBytes+1)), fails: true},
		"the chunk is a bomb":          {sealed: c.Seal(make([]byte, 64<<20)), base: c.Seal(base), fails: true},
		"the base is long":             {sealed: sealed, base: make([]byte, images.MaxSealedBytes+1), fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			delta, err := c.Diff(test.sealed, test.base)
			if fails := errors.Is(err, images.ErrCorrupt); fails != test.fails || err != nil && !fails {
				t.Fatalf("Diff: %v", err)
			}
			if test.fails {
				return
			}
			chunk.Sealed = delta
			plain, err := c.OpenDelta(nil, chunk, base)
			if opens := err == nil && bytes.Equal(plain, patched); opens != test.opens || !opens && !errors.Is(err, images.ErrCorrupt) {
				t.Errorf("OpenDelta: %v", err)
			}
		})
	}
}

func FuzzOpenDelta(f *testing.F) {
	c, base := codec(f), noise(5, 4096)
	f.Add(c.SealDelta(append([]byte("x"), base...), base), base)
	f.Add(c.SealDelta(base, base), base[:1000])
	f.Fuzz(func(t *testing.T, sealed, base []byte) {
		if plain, err := c.OpenDelta(nil, images.Chunk{Sealed: sealed}, base); err == nil {
			t.Errorf("%d bytes were taken for a chunk of the zero digest", len(plain))
		}
	})
}
