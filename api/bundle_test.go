package api

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"daybreak/api/audit"
	"daybreak/images"
	"daybreak/images/bundle"
	"daybreak/images/push"
	"daybreak/images/sign"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// office is a control plane that takes images in, and trusts the publishers of others.
func office(t *testing.T, others ...*rig) *rig {
	t.Helper()
	chunks, _ := newChunks(t)
	trusted, err := sign.NewPublishers()
	for _, other := range others {
		trusted, err = sign.NewPublishers(append(trusted.Keys(), other.key.Public())...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return newRig(t, func(c *Config) { c.Chunks, c.Trusted = chunks, trusted })
}

// export makes a bundle of a version, whole or since another.
func (r *rig) export(codec *images.Codec, v, since *v1.ImageVersion) []byte {
	r.t.Helper()
	admin := r.as(v1.Role_ROLE_ADMIN)
	manifest, err := push.Manifest(r.t.Context(), admin, v.GetDigest())
	if err != nil {
		r.t.Fatal(err)
	}
	var older *images.Manifest
	if since != nil {
		if older, err = push.Manifest(r.t.Context(), admin, since.GetDigest()); err != nil {
			r.t.Fatal(err)
		}
	}
	header := &v1.BundleHeader{
		Image: "debian", Number: v.GetNumber(), Digest: v.GetDigest(), SizeBytes: v.GetSizeBytes(), Created: v.GetCreated(), By: v.GetBy(),
		Signatures: v.GetSignatures(),
	}
	var file bytes.Buffer
	if err := bundle.Write(r.t.Context(), &file, codec, header, manifest, older, push.From(admin), nil); err != nil {
		r.t.Fatal(err)
	}
	return file.Bytes()
}

// takeIn imports a bundle, and returns what came of it and what was sent.
func (r *rig) takeIn(codec *images.Codec, file io.Reader, name string) (*v1.CreateVersionResponse, bundle.Progress, error) {
	r.t.Helper()
	from, err := bundle.NewReader(file, codec)
	if err != nil {
		return nil, bundle.Progress{}, err
	}
	var last bundle.Progress
	made, err := push.Bundle(r.t.Context(), r.as(v1.Role_ROLE_ADMIN), from, &v1.VersionHeader{
		Image: name, OriginImage: from.Header().GetImage(), OriginSignatures: from.Header().GetSignatures(),
	}, func(p bundle.Progress) { last = p })
	return made, last, err
}

// wantNoImages checks that nobody sees anything of what was refused.
func (r *rig) wantNoImages() {
	r.t.Helper()
	if list, _, err := store.List[*v1.Image](r.t.Context(), store.Open(r.backend, store.WriterAPI)); err != nil || len(list) > 0 {
		r.t.Errorf("images %v, %v", list, err)
	}
}

func TestBundleBetweenTwoControlPlanes(t *testing.T) {
	here := office(t)
	there, stranger := office(t, here), office(t)
	_, codec := newChunks(t)
	file := newDisk(t, 80)
	made, err := push.Disk(t.Context(), here.as(v1.Role_ROLE_ADMIN), codec, file, &v1.VersionHeader{Image: "debian"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := made.GetVersion()
	whole := here.export(codec, first, nil)
	if _, err := file.WriteAt([]byte("patched"), 40*images.ChunkBytes); err != nil {
		t.Fatal(err)
	}
	if made, err = push.Disk(t.Context(), here.as(v1.Role_ROLE_ADMIN), codec, file, &v1.VersionHeader{Image: "debian", Parent: 1}, nil); err != nil {
		t.Fatal(err)
	}
	delta := here.export(codec, made.GetVersion(), first)
	if len(delta) > 2*images.ChunkBytes {
		t.Errorf("a delta of one chunk has %d bytes", len(delta))
	}

	// Who is not trusted is refused by the server too, whatever the client checks.
	_, _, err = stranger.takeIn(codec, bytes.NewReader(whole), "debian")
	wantCode(t, err, codes.FailedPrecondition, "signed by publisher "+sign.Fingerprint(here.key.Public()), "--trust-publisher-key")
	stranger.wantNoImages()
	// A delta needs what it leaves out.
	if _, _, err = there.takeIn(codec, bytes.NewReader(delta), "debian"); !errors.Is(err, push.ErrLeftOut) {
		t.Errorf("a delta without its base: %v", err)
	}
	// A file that breaks off leaves nothing to see, and what was sent is not sent again.
	_, broken, err := there.takeIn(codec, bytes.NewReader(whole[:len(whole)-100]), "debian")
	if !errors.Is(err, bundle.ErrInvalid) || !strings.Contains(err.Error(), "cut off") || broken.Sent == 0 {
		t.Errorf("cut off: %v, %v sent", err, broken.Sent)
	}
	there.wantNoImages()
	made, sent, err := there.takeIn(codec, bytes.NewReader(whole), "office")
	if err != nil || made.GetExisted() || made.GetVersion().GetDigest() != first.GetDigest() {
		t.Fatalf("%v, %v", made, err)
	}
	if sent.Sent == 0 || sent.Sent >= sent.Bytes/2 {
		t.Errorf("resumed: %d bytes of %d sent", sent.Sent, sent.Bytes)
	}
	if signatures := made.GetVersion().GetSignatures(); len(signatures) != 1 || !bytes.Equal(signatures[0].GetKey(), there.key.Public()) {
		t.Errorf("signed by %v", signatures)
	}
	if _, err := v1.NewImageServiceClient(there.as(v1.Role_ROLE_ADMIN)).Publish(t.Context(), &v1.PublishRequest{Image: "office", Version: 1}); err != nil {
		t.Error(err)
	}
	made, sent, err = there.takeIn(codec, bytes.NewReader(delta), "office")
	if err != nil || made.GetVersion().GetNumber() != 2 || sent.Total != 1 {
		t.Errorf("delta: %v, %v, %v", made, sent, err)
	}
	made, sent, err = there.takeIn(codec, bytes.NewReader(whole), "office")
	if err != nil || !made.GetExisted() || sent.Sent != 0 {
		t.Errorf("again: %v, %v, %v", made, sent, err)
	}
}

// TestBundleUnderAnotherName: a signature for one image does not hold for another.
func TestBundleUnderAnotherName(t *testing.T) {
	here := office(t)
	there := office(t, here)
	_, codec := newChunks(t)
	made, err := push.Disk(t.Context(), here.as(v1.Role_ROLE_ADMIN), codec, newDisk(t, 2), &v1.VersionHeader{Image: "debian"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := made.GetVersion()
	manifest, err := push.Manifest(t.Context(), here.as(v1.Role_ROLE_ADMIN), v.GetDigest())
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	header := &v1.BundleHeader{Image: "windows", Number: 1, Digest: v.GetDigest(), SizeBytes: v.GetSizeBytes(), Signatures: v.GetSignatures()}
	if err := bundle.Write(t.Context(), &file, codec, header, manifest, nil, push.From(here.as(v1.Role_ROLE_ADMIN)), nil); err != nil {
		t.Fatal(err)
	}
	_, _, err = there.takeIn(codec, &file, "debian")
	wantCode(t, err, codes.FailedPrecondition, "is not for this content under this name")
	there.wantNoImages()
}

// TestContentForPeople: only who may replace an image may carry it away, and leaves a trace.
func TestContentForPeople(t *testing.T) {
	r := office(t)
	_, codec := newChunks(t)
	made, err := push.Disk(t.Context(), r.as(v1.Role_ROLE_ADMIN), codec, newDisk(t, 2), &v1.VersionHeader{Image: "debian"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	digest := made.GetVersion().GetDigest()
	for _, role := range []v1.Role{v1.Role_ROLE_OPERATOR, v1.Role_ROLE_VIEWER} {
		_, err := push.Manifest(t.Context(), r.as(role), digest)
		wantCode(t, err, codes.PermissionDenied)
		err = push.From(r.as(role)).Chunks(t.Context(), []images.Digest{images.Sum(nil)}, func(images.Chunk) error { return nil })
		wantCode(t, err, codes.PermissionDenied)
	}
	manifest, err := push.Manifest(t.Context(), r.as(v1.Role_ROLE_ADMIN), digest)
	if err != nil || manifest.Digest().String() != digest {
		t.Fatal(err)
	}
	traced := 0
	for _, record := range r.audited() {
		if record.Method == "ImageService/GetManifest" && record.Object == "version/"+digest && record.Phase == audit.Intent {
			traced++
		}
	}
	if traced != 1 {
		t.Errorf("%d lines in the audit log", traced)
	}
}
