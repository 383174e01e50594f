package catalog

import (
	"slices"
	"time"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// MinGrace is the least time for which what nobody needs is kept.
const MinGrace = time.Hour

// Holdings is what a collection looks at.
type Holdings struct {
	Images []*v1.Image
	Users  Users
	// Manifests has the age of each that lies in the image store.
	Manifests map[images.Digest]time.Duration
}

// Collectable says which versions of which images nobody needs any more, by image and number: those that are neither ready nor
// current nor named by a pool, a rollout, a desktop's present life or a host's list, and that have not changed for the grace.
// One whose manifest was put again since is somebody's import that goes on.
func Collectable(now time.Time, grace time.Duration, h Holdings) map[string][]uint32 {
	staged := map[string]bool{}
	for _, host := range h.Users.Hosts {
		for _, wanted := range host.GetWantedImages() {
			staged[wanted.GetDigest()] = true
		}
	}
	for _, desktop := range h.Users.Desktops {
		staged[desktop.GetIncarnation().GetDigest()] = true
	}
	found := map[string][]uint32{}
	for _, image := range h.Images {
		usage := Usage(image, h.Users)
		for i, v := range image.GetStatus().GetVersions() {
			used := usersOf(usage[i]) != "" || staged[v.GetDigest()] || image.GetStatus().GetCurrent() == v.GetNumber()
			if used || v.GetCollected() || !givenUp(v) || now.Sub(changed(v)) < grace {
				continue
			}
			digest, err := images.ParseDigest(v.GetDigest())
			if age, here := h.Manifests[digest]; err == nil && (!here || age >= grace) {
				found[image.GetMeta().GetName()] = append(found[image.GetMeta().GetName()], v.GetNumber())
			}
		}
	}
	return found
}

// givenUp: the version is in a state that is not kept for ever.
func givenUp(v *v1.ImageVersion) bool {
	return slices.Contains([]v1.VersionState{
		v1.VersionState_VERSION_STATE_DRAFT, v1.VersionState_VERSION_STATE_RETIRED, v1.VersionState_VERSION_STATE_WITHDRAWN,
	}, v.GetState())
}

// changed is when somebody last did something about the version.
func changed(v *v1.ImageVersion) time.Time {
	at := v.GetCreated().AsTime()
	if since := v.GetStateSince(); since != nil && since.AsTime().After(at) {
		at = since.AsTime()
	}
	return at
}

// needs are the digests that versions which are not collected name in the image store, and of those the manifests.
func needs(all []*v1.Image, collected map[string][]uint32) (manifests, chunks map[images.Digest]string) {
	manifests, chunks = map[images.Digest]string{}, map[images.Digest]string{}
	for _, image := range all {
		name := image.GetMeta().GetName()
		for _, v := range image.GetStatus().GetVersions() {
			if v.GetCollected() || slices.Contains(collected[name], v.GetNumber()) {
				continue
			}
			if digest, err := images.ParseDigest(v.GetDigest()); err == nil {
				manifests[digest] = versionName(name, v.GetNumber())
			}
			for _, text := range []string{v.GetPackages(), v.GetLog()} {
				if digest, err := images.ParseDigest(text); err == nil {
					chunks[digest] = versionName(name, v.GetNumber())
				}
			}
		}
	}
	return manifests, chunks
}
