# The gateway or the HAG as a container. It works on the host's network, so:
#   docker build -t bondsocks .
#   docker run --network host --cap-add NET_ADMIN -v /etc/bondsocks:/etc/bondsocks:ro bondsocks hag -c /etc/bondsocks/hag.yaml
# `run` also writes sysctls: give it --privileged, and -v /run/bondsocks:/run/bondsocks for what `remove` puts back.

FROM node:20-bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json ./
COPY scripts/bundle.ts scripts/bundle.ts
COPY src src
RUN npm run build

FROM node:20-bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends iproute2 iptables && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/build/bondsocks.node /app/build/lab.node build/
COPY --from=build /app/dist dist
ENTRYPOINT ["node", "/app/dist/main.js"]
