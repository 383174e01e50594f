# Shared by the golden-image recipes; sourced, never run.
# What lives here: fetching Debian packages into a cache, and making a bootable disk of a directory tree.
# What an image contains is the recipes' business.

# Everything that would otherwise differ from one build to the next is fixed here.
readonly golden_epoch=1700000000
readonly golden_fs_uuid=da7b4ea0-0000-4000-8000-000000000001
readonly golden_hash_seed=da7b4ea0-0000-4000-8000-000000000002
readonly golden_disk_id=0xda7b4ea0
readonly grub_dir=/usr/lib/grub/i386-pc

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export LC_ALL=C

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# need FILE-OR-COMMAND PACKAGE ...: names every missing tool at once, with the package that has it.
need() {
  local missing=()
  while (($# > 0)); do
    if [[ $1 == /* ]]; then [[ -e $1 ]] || missing+=("$2"); else command -v "$1" >/dev/null || missing+=("$2"); fi
    shift 2
  done
  ((${#missing[@]} == 0)) || die "missing packages: ${missing[*]}; run deploy/install golden, or: apt-get install ${missing[*]}"
}

require_amd64() {
  [[ $(dpkg --print-architecture) == amd64 ]] || die "golden images are made for amd64 guests from the build machine's own packages; this machine is $(dpkg --print-architecture)"
}

golden_cache() {
  local checkout
  checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  printf '%s\n' "${DAYBREAK_CACHE_DIR:-$checkout/.lab/cache}"
}

# update_lists: apt's lists are needed to find packages, and age.
update_lists() {
  say "updating apt's package lists"
  if ((EUID == 0)); then apt-get update -qq >&2; else sudo apt-get update -qq >&2; fi
}

# library_closure PACKAGE...: the packages and, through library packages only, what they need.
# Following every dependency would drag in perl and init helpers that no image here runs.
library_closure() {
  local -A seen=()
  local todo=("$@") found p
  while ((${#todo[@]} > 0)); do
    for p in "${todo[@]}"; do seen[$p]=1; done
    found=$(apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "${todo[@]}" |
      awk '/^ *\|?(Pre)?Depends: (lib|zlib)/ {print $NF}' | sort -u)
    todo=()
    for p in $found; do [[ -n ${seen[$p]-} ]] || todo+=("$p"); done
  done
  printf '%s\n' "${!seen[@]}" | sort
}

# fetch_debs DIR PACKAGE...: downloads into DIR once. DIR appears whole or not at all.
fetch_debs() {
  local dir=$1 tmp; shift
  [[ -d $dir ]] && return
  mkdir -p "$(dirname "$dir")"
  tmp=$(mktemp -d "$dir.XXXXXX")
  chmod 755 "$tmp"
  say "downloading $# packages into $dir"
  download() { (cd "$tmp" && apt-get download -qq -o APT::Sandbox::User=root "$@" >&2); }
  download "$@" || { update_lists && download "$@"; } || {
    rm -rf "$tmp"
    die "cannot download $*: check the network and the machine's package sources"
  }
  mv -T "$tmp" "$dir"
}

# make_initrd TREE KVER BUSYBOX OUT MODULE...: a first-stage file system that loads the modules of TREE and mounts the root.
# Modules are loaded in this order, after what they depend on; what the kernel has built in is left out.
make_initrd() {
  local tree=$1 kver=$2 busybox=$3 out=$4 dir name file n=0
  shift 4
  dir=$(mktemp -d)
  mkdir -p "$dir"/{bin,dev,proc,root,modules}
  chmod 755 "$dir"
  install -m 755 "$busybox" "$dir/bin/busybox"
  install -m 755 "$(dirname "${BASH_SOURCE[0]}")/initrd-init" "$dir/init"
  for name in "$@"; do
    modprobe -d "$tree" -S "$kver" --show-depends "$name"
  done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' >"$dir.modules"
  while IFS= read -r file; do
    n=$((n + 1))
    name=$dir/modules/$(printf %02d "$n")-$(basename "$file" | sed 's/\.xz$//; s/\.zst$//')
    case $file in
      *.xz) xz -dc "$file" >"$name" ;;
      *.zst) zstd -qdc "$file" >"$name" ;;
      *) cp "$file" "$name" ;;
    esac
  done <"$dir.modules"
  find "$dir" -exec touch -h -d "@$golden_epoch" {} +
  (cd "$dir" && find . -mindepth 1 -printf '%P\n' | sort | cpio -o -H newc --quiet --reproducible -R 0:0) | gzip -n -1 >"$out"
  chmod 644 "$out"
  rm -rf "$dir" "$dir.modules"
}

# tree_to_debugfs TREE: prints the debugfs commands that copy TREE, sorted by name, owned by root, dated golden_epoch.
# mke2fs -d would copy the build machine's change times, owners and directory order into the image.
tree_to_debugfs() {
  local tree=$1 dir path name type mode target
  printf 'set_current_time @%s\n' "$golden_epoch"
  # debugfs resolves names best from where it stands, so every entry is made from inside its folder.
  while IFS=$'\t' read -r -d '' path type mode target; do
    dir=/ name=$path
    [[ $path != */* ]] || dir=/${path%/*} name=${path##*/}
    printf 'cd "%s"\n' "$dir"
    case $type in
      d) printf 'mkdir "%s"\nsif "%s" mode 04%04o\n' "$name" "$name" "$((8#$mode))" ;;
      l) printf 'symlink "%s" "%s"\n' "$name" "$target" ;;
      f) printf 'write "%s" "%s"\nsif "%s" mode 010%04o\n' "$tree/$path" "$name" "$name" "$((8#$mode))" ;;
      *) die "cannot put $path into an image: neither folder, file nor link" ;;
    esac
  done < <(find "$tree" -mindepth 1 -printf '%P\t%y\t%m\t%l\0' | sort -z)
}

# grub_core OUT: a boot loader that reads /boot/grub/grub.cfg of the first partition and shows no menu.
grub_core() {
  local out=$1
  printf 'set root=(hd0,msdos1)\nset prefix=(hd0,msdos1)/boot/grub\nconfigfile (hd0,msdos1)/boot/grub/grub.cfg\n' >"$out.cfg"
  grub-mkimage -O i386-pc -d "$grub_dir" -p '(hd0,msdos1)/boot/grub' -c "$out.cfg" -o "$out" \
    biosdisk part_msdos ext2 linux16 normal configfile boot
  (($(stat -c %s "$out") < 2047 * 512)) || die "grub core image does not fit before the first partition"
}

# grub_cfg KERNEL INITRD CMDLINE: the configuration that grub_core reads. linux16 starts a kernel 1.7 s sooner than linux does
# on an emulated CPU: GRUB's linux moves the kernel with its whole working space, 50 MiB, byte by byte.
grub_cfg() {
  printf 'linux16 %s %s\ninitrd16 %s\nboot\n' "$1" "$3" "$2"
}

# empty_disk RAW MIB: an MBR disk with GRUB before its one bootable partition at 1 MiB. Works on a plain file:
# no loop device, no mount, no root.
empty_disk() {
  local raw=$1 mib=$2 core=$1.core
  grub_core "$core"
  rm -f "$raw"
  truncate -s "${mib}M" "$raw"
  printf 'label: dos\nlabel-id: %s\nstart=2048, type=83, bootable\n' "$golden_disk_id" | sfdisk -q "$raw"
  # boot.img's built-in default is to load its core from sector 1, which is where it goes.
  dd if="$grub_dir/boot.img" of="$raw" bs=440 count=1 conv=notrunc status=none
  dd if="$core" of="$raw" bs=512 seek=1 conv=notrunc status=none
  rm -f "$core" "$core.cfg"
}

# make_fs RAW MIB LABEL [MKE2FS-OPTION...]: an ext4 file system on the partition of empty_disk. Inode tables and journal are
# written now, so that no clone spends its first minutes zeroing them in its overlay.
make_fs() {
  local raw=$1 mib=$2 label=$3; shift 3
  E2FSPROGS_FAKE_TIME=$golden_epoch mke2fs -q -F -t ext4 -b 4096 -I 256 -L "$label" -m 0 -U "$golden_fs_uuid" \
    -E "offset=1048576,hash_seed=$golden_hash_seed,root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0" "$@" \
    "$raw" $(((mib - 1) * 1024))k
}

# publish RAW OUT: the finished file appears under its name whole or not at all.
publish() {
  fallocate --dig-holes "$1"
  chmod 644 "$1"
  mv -f "$1" "$2"
}
