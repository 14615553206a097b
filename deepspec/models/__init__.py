"""Spectral components by name; each is imported when it is first asked for."""

from deepspec.registry import Registry

COMPONENTS = Registry(
    "component",
    {
        # power laws
        "powerlaw": "deepspec.models.additive:PowerLaw",
        "zpowerlw": "deepspec.models.additive:ZPowerLaw",
        "pegpwrlw": "deepspec.models.additive:PeggedPowerLaw",
        "cutoffpl": "deepspec.models.additive:CutoffPowerLaw",
        "zcutoffpl": "deepspec.models.additive:ZCutoffPowerLaw",
        "bknpower": "deepspec.models.additive:BrokenPowerLaw",
        "bkn2pow": "deepspec.models.additive:TwiceBrokenPowerLaw",
        # thermal continua
        "bbody": "deepspec.models.thermal:BlackBody",
        "zbbody": "deepspec.models.thermal:ZBlackBody",
        "bbodyrad": "deepspec.models.thermal:BlackBodyRadius",
        "diskbb": "deepspec.models.thermal:DiskBlackBody",
        "bremss": "deepspec.models.bremsstrahlung:Bremsstrahlung",
        "zbremss": "deepspec.models.bremsstrahlung:ZBremsstrahlung",
        # collisional plasma
        "mekal": "deepspec.models.plasma:Mekal",
        "vmekal": "deepspec.models.plasma:Vmekal",
        "apec": "deepspec.models.plasma:Apec",
        "vapec": "deepspec.models.plasma:Vapec",
        # lines
        "gaussian": "deepspec.models.lines:Gaussian",
        "zgauss": "deepspec.models.lines:ZGaussian",
        # absorption by gas and dust
        "tbabs": "deepspec.models.absorption:TBabs",
        "ztbabs": "deepspec.models.absorption:ZTBabs",
        "phabs": "deepspec.models.absorption:Phabs",
        "zphabs": "deepspec.models.absorption:ZPhabs",
        "pcfabs": "deepspec.models.absorption:PartialPhabs",
        "zpcfabs": "deepspec.models.absorption:ZPartialPhabs",
        # other factors
        "constant": "deepspec.models.factors:Constant",
        "edge": "deepspec.models.factors:Edge",
        "zedge": "deepspec.models.factors:ZEdge",
        "expabs": "deepspec.models.factors:ExponentialRollOff",
        "highecut": "deepspec.models.factors:HighEnergyCutoff",
        "gabs": "deepspec.models.factors:GaussianAbsorption",
        # learned from data
        "deepspec": "deepspec.learned.component:Deepspec",
        # operations on a whole spectrum
        "zashift": "deepspec.models.convolution:RedshiftAdditive",
        "cflux": "deepspec.models.convolution:EnergyFlux",
        "cpflux": "deepspec.models.convolution:PhotonFlux",
    },
)
