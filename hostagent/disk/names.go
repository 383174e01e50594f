package disk

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"daybreak/hostagent"
	"daybreak/images"
)

// File names are made of checked UUIDs, digests and numbers only, and read back by the same rules: a file that somebody
// else put here is not ours.

var desktopName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func checkUID(uid string) error {
	if id, err := uuid.Parse(uid); err != nil || id.String() != uid {
		return fmt.Errorf("desktop's uid %.80q is not a UUID in lower case: %w", uid, hostagent.ErrPermanent)
	}
	return nil
}

func checkDesktop(name string) error {
	if !desktopName.MatchString(name) {
		return fmt.Errorf("desktop's name %.80q is not a DNS label: %w", name, hostagent.ErrPermanent)
	}
	return nil
}

func checkLife(life hostagent.Life) error {
	if err := checkDesktop(life.Desktop); err != nil {
		return err
	}
	if life.Generation <= 0 {
		return fmt.Errorf("generation %d of %s is not above 0: %w", life.Generation, life.Desktop, hostagent.ErrPermanent)
	}
	return checkUID(life.UID)
}

func overlayName(life hostagent.Life) string {
	return life.UID + "." + strconv.FormatInt(life.Generation, 10) + ".qcow2"
}

// parseOverlayName returns the uid and generation in an overlay's name.
func parseOverlayName(name string) (uid string, generation int64, ok bool) {
	stem, isOverlay := strings.CutSuffix(name, ".qcow2")
	uid, number, cut := strings.Cut(stem, ".")
	generation, err := strconv.ParseInt(number, 10, 64)
	ok = isOverlay && cut && err == nil && generation > 0 && checkUID(uid) == nil && number == strconv.FormatInt(generation, 10)
	return uid, generation, ok
}

func dataName(uid string) string {
	return uid + ".raw"
}

func parseDataName(name string) (uid string, ok bool) {
	uid, ok = strings.CutSuffix(name, ".raw")
	return uid, ok && checkUID(uid) == nil
}

func baseName(d images.Digest) string {
	return d.String() + ".raw"
}

func manifestName(d images.Digest) string {
	return d.String() + ".manifest"
}

func stampName(d images.Digest) string {
	return d.String() + ".whole"
}

func layerName(d images.Digest) string {
	return d.String() + ".qcow2"
}

// parseBaseName returns whose file a base's is, and whether that is a layer.
func parseBaseName(name string) (d images.Digest, layered, ok bool) {
	stem, raw := strings.CutSuffix(name, ".raw")
	if !raw {
		stem, layered = strings.CutSuffix(name, ".qcow2")
	}
	d, err := images.ParseDigest(stem)
	return d, layered, (raw || layered) && err == nil
}

func partName(d images.Digest, layered bool) string {
	if layered {
		return d.String() + layerSuffix + partSuffix
	}
	return d.String() + partSuffix
}

func parseDigest(digest string) (images.Digest, error) {
	d, err := images.ParseDigest(digest)
	if err != nil {
		return d, fmt.Errorf("version's digest: %w: %w", err, hostagent.ErrPermanent)
	}
	return d, nil
}
