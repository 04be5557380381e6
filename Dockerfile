# vmlet in a container: Node, the program, the guest's kernels and initramfs. Start it as an ordinary
# user, with nothing but the device:
#
#   docker build -t vmlet .
#   docker run --rm -it --device /dev/kvm --group-add "$(stat -c %g /dev/kvm)" vmlet
#   docker run --rm     --device /dev/kvm --group-add "$(stat -c %g /dev/kvm)" vmlet boot --quiet -- uname -a
#
# BASE is a Debian 12 with Node 20 or newer and npm.
ARG BASE=node:20-bookworm-slim

FROM ${BASE} AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund && mv node_modules /node_modules
COPY . .
# What the checkout has built already is taken along: kernels take minutes. The rest is built here, with the
# Debian packages that the guest is made of.
RUN if [ ! -e dist/vmlet.js ] || [ ! -e guest/out/fast/vmlinux ] || [ ! -e guest/out/initramfs.cpio ]; then \
      guest/packages && make build guest; \
    fi \
 && lib=/image/usr/local/lib/vmlet \
 && mkdir -p "$lib/guest/out/default" "$lib/guest/out/fast" /image/usr/local/bin \
 && cp -r package.json LICENSE dist /node_modules "$lib/" \
 && cp guest/out/default/vmlinux "$lib/guest/out/default/" \
 && cp guest/out/fast/vmlinux "$lib/guest/out/fast/" \
 && cp guest/out/initramfs.cpio guest/out/tiny.cpio "$lib/guest/out/" \
 && ln -s ../lib/vmlet/dist/vmlet.js /image/usr/local/bin/vmlet

FROM ${BASE}
COPY --from=build /image /
USER 1000:1000
ENTRYPOINT ["vmlet"]
CMD ["boot"]
